package statshttpd

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"btcpool/internal/httpapi"
	"btcpool/internal/store"
)

// ckpool's files, which web servers give out as they are: pool.status has three lines of JSON, a user's file is one object.

type (
	ckpoolCounts struct {
		Runtime      int64 `json:"runtime"`
		LastUpdate   int64 `json:"lastupdate"`
		Users        int   `json:"Users"`
		Workers      int   `json:"Workers"`
		Idle         int   `json:"Idle"`
		Disconnected int   `json:"Disconnected"`
	}
	ckpoolRates struct {
		M1  suffixed `json:"hashrate1m"`
		M5  suffixed `json:"hashrate5m"`
		M15 suffixed `json:"hashrate15m"`
		H1  suffixed `json:"hashrate1hr"`
		H6  suffixed `json:"hashrate6hr"`
		D1  suffixed `json:"hashrate1d"`
		D7  suffixed `json:"hashrate7d"`
	}
	ckpoolShares struct {
		Diff      float64 `json:"diff"` // of a block's work, in percent
		Accepted  int64   `json:"accepted"`
		Rejected  int64   `json:"rejected"`
		BestShare int64   `json:"bestshare"`
		SPS1m     float64 `json:"SPS1m"`
		SPS5m     float64 `json:"SPS5m"`
		SPS15m    float64 `json:"SPS15m"`
		SPS1h     float64 `json:"SPS1h"`
	}
	ckpoolUser struct {
		ckpoolWork
		Workers    int            `json:"workers"`
		Authorised int64          `json:"authorised"`
		Worker     []ckpoolWorker `json:"worker"`
	}
	ckpoolWorker struct {
		Name string `json:"workername"`
		ckpoolWork
	}
	ckpoolWork struct {
		M1        suffixed `json:"hashrate1m"`
		M5        suffixed `json:"hashrate5m"`
		H1        suffixed `json:"hashrate1hr"`
		D1        suffixed `json:"hashrate1d"`
		D7        suffixed `json:"hashrate7d"`
		LastShare int64    `json:"lastshare"`
		Shares    int64    `json:"shares"`
		BestShare float64  `json:"bestshare"`
		BestEver  int64    `json:"bestever"`
	}
)

// suffixed is a rate in H/s that is written with three digits and K, M, G, T, P or E.
type suffixed float64

func (n suffixed) String() string {
	const units = " KMGTPEZ"
	v, unit := float64(n), 0
	if v < 1000 {
		return strconv.FormatInt(int64(v), 10)
	}
	for v >= 999.5 && unit < len(units)-1 {
		v /= 1000
		unit++
	}
	return strconv.FormatFloat(v, 'g', 3, 64) + units[unit:unit+1]
}

// MarshalJSON writes a text.
func (n suffixed) MarshalJSON() ([]byte, error) { return json.Marshal(n.String()) }

func (s *Service) ckpool() []endpoint {
	return []endpoint{
		{"/pool/pool.status", "ckpool_status", s.ckpoolStatus, false},
		{"/users/{user}", "ckpool_user", s.ckpoolUser, false},
	}
}

func (s *Service) ckpoolStatus(r *http.Request, _ *httpapi.Query) (any, error) {
	now := s.moment()
	v := s.poolView(now)
	pool := store.StatsKey{}
	hours, err := s.tableMean(r.Context(), pool, steps["hour"], 6, v.First)
	if err != nil {
		return nil, err
	}
	days, err := s.tableMean(r.Context(), pool, steps["day"], weekDays, v.First)
	if err != nil {
		return nil, err
	}
	round, effort, _ := s.effort(now)
	status := []any{
		ckpoolCounts{int64(now.Sub(s.started).Seconds()), now.Unix(), v.Users, v.Online, v.Waiting, v.Silent},
		ckpoolRates{
			v.Rate1m.suffixed(), v.Rate5m.suffixed(), v.Rate15m.suffixed(), v.Rate1h.suffixed(),
			suffixed(hours), v.Rate1d.suffixed(), suffixed(days),
		},
		ckpoolShares{
			Diff: hundredths(effort * 100), Accepted: int64(round / hashesPerDifficulty),
			Rejected: int64((v.Rejected.Work.Float() + v.Stale.Work.Float()) / hashesPerDifficulty), BestShare: int64(v.RoundBest.difficulty()),
			SPS1m: hundredths(v.Rate1m.perSecond(minute)), SPS5m: hundredths(v.Rate5m.perSecond(fiveMinutes)),
			SPS15m: hundredths(v.Rate15m.perSecond(quarterHour)), SPS1h: hundredths(v.Rate1h.perSecond(hour)),
		},
	}
	var lines bytes.Buffer
	for _, line := range status {
		if err := json.NewEncoder(&lines).Encode(line); err != nil {
			return nil, err
		}
	}
	return plainText(lines.Bytes()), nil
}

func hundredths(v float64) float64 { return math.Round(v*100) / 100 }

func (r rate) suffixed() suffixed { return suffixed(r.orZero()) }

func (s *Service) ckpoolUser(r *http.Request, _ *httpapi.Query) (any, error) {
	now := s.moment()
	u := s.findUser(now, r.PathValue("user"))
	if u == nil {
		return nil, errNoSuchUser
	}
	db := s.statistics()
	if db == nil {
		return nil, errUnavailable
	}
	views, total := s.workersOf(now, u.ID, isThere)
	ids := make([]int64, 0, len(views)+1)
	for _, v := range views {
		ids = append(ids, v.WorkerID)
	}
	start := now.Truncate(24*time.Hour).AddDate(0, 0, -weekDays)
	week, err := db.SumDays(r.Context(), u.ID, ids, store.Day.Period(start), store.Day.Period(now))
	if err != nil {
		return nil, err
	}
	work := func(id int64, t *tally, p *past) ckpoolWork {
		return ckpoolWork{
			M1: t.Rate1m.suffixed(), M5: t.Rate5m.suffixed(), H1: t.Rate1h.suffixed(), D1: t.Rate1d.suffixed(),
			D7: suffixed(week[id] / covered(now, start, p.First)), LastShare: p.Last, Shares: int64(week[id] / hashesPerDifficulty),
			BestShare: p.RoundBest.difficulty(), BestEver: int64(p.Best.difficulty()),
		}
	}
	a := ckpoolUser{ckpoolWork: work(0, &u.tally, &u.past), Workers: total, Authorised: u.First, Worker: []ckpoolWorker{}}
	for _, v := range views {
		a.Worker = append(a.Worker, ckpoolWorker{u.called() + "." + v.named(), work(v.WorkerID, &v.tally, &v.past)})
	}
	return a, nil
}
