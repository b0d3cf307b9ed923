package slparser

import (
	"encoding/json"
	"math/big"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/httpapi"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

const maxAnswers = 200_000 // in one answer: workers times hours

var invalidArgs = httpapi.Legacy{ErrNo: 1, ErrMsg: "invalid args"}

// measures are the numbers of a key and a time; work is in whole shares of difficulty 1.
type measures struct {
	Accept       uint64                  `json:"accept"`
	Stale        uint64                  `json:"stale"`
	Reject       uint64                  `json:"reject"`
	RejectDetail map[share.Status]uint64 `json:"reject_detail"`
	RejectRate   float64                 `json:"reject_rate"`
	Earn         *big.Int                `json:"earn"`
}

func (t *totals) measures() measures {
	m := measures{
		Accept:       t.accept.Difficulty(),
		Stale:        t.stale.Difficulty(),
		Reject:       t.rejected().Difficulty(),
		RejectDetail: make(map[share.Status]uint64, len(t.rejects)),
		Earn:         t.earnSat(),
	}
	for _, r := range t.rejects {
		m.RejectDetail[r.status] = r.work.Difficulty()
	}
	if reject := t.rejected().Float(); reject > 0 {
		m.RejectRate = reject / (t.accept.Float() + reject)
	}
	return m
}

type poolAnswer struct {
	Uptime   string `json:"uptime"`
	Requests uint64 `json:"request"`
	Bytes    uint64 `json:"repbytes"`
	Pool     struct {
		Today    poolMeasures `json:"today"`
		CurrHour poolMeasures `json:"curr_hour"`
	} `json:"pool"`
}

type poolMeasures struct {
	HashrateT float64 `json:"hashrate_t"` // 10^12 hashes a second
	measures
}

type hourMeasures struct {
	Hour int `json:"hour"` // as it was asked for
	measures
}

// handler answers as btcpool does: GET, POST and HEAD, always with status 200.
func (s *Service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", s.serve(s.poolAnswer))
	mux.HandleFunc("/share_stats", s.serve(s.shareStats))
	mux.HandleFunc("/share_stats/{$}", s.serve(s.shareStats))
	return mux
}

func (s *Service) serve(f func(url.Values) httpapi.Legacy) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet, http.MethodPost, http.MethodHead:
		default:
			w.Header().Set("Allow", "GET, HEAD, POST")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		s.metrics.requests.Inc()
		s.requests.Add(1)
		answer := invalidArgs
		if form, err := httpapi.LegacyForm(w, r); err == nil {
			answer = f(form)
		}
		body, err := json.Marshal(answer)
		if err != nil {
			s.log.Error().Err(err).Msg("answer cannot be written as JSON")
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/json")
		n, _ := w.Write(body) // an error means that whoever asked is gone
		s.bytes.Add(uint64(n))
	}
}

func (s *Service) poolAnswer(url.Values) httpapi.Legacy {
	now := time.Now().UTC()
	var a poolAnswer
	a.Uptime = httpapi.LegacyUptime(now.Sub(s.started))
	a.Requests, a.Bytes = s.requests.Load(), s.bytes.Load()
	ofDay := now.Unix() % 86400
	s.mu.Lock()
	defer s.mu.Unlock()
	day, hour := s.lookUp(now, key{}, wholeDay), s.lookUp(now, key{}, now.Hour())
	a.Pool.Today = poolMeasures{terahashes(day.accept, ofDay), day.measures()}
	a.Pool.CurrHour = poolMeasures{terahashes(hour.accept, ofDay%3600), hour.measures()}
	return httpapi.Legacy{Data: a}
}

// terahashes is the hashrate that did the work in so many seconds.
func terahashes(w bitcoin.Work, seconds int64) float64 {
	return w.Float() / float64(max(seconds, 1)) / 1e12
}

// wholeDay is the hour that stands for the day.
const wholeDay = 24

// lookUp returns what a key did today, in an hour or the wholeDay. The caller holds mu.
func (s *Service) lookUp(now time.Time, k key, hour int) *totals {
	f := s.files[sharefile.DayOf(now.Unix())]
	if f == nil || hour < 0 || hour > wholeDay {
		return new(totals)
	}
	e := f.stats.find(k)
	switch {
	case e == nil:
		return new(totals)
	case hour == wholeDay:
		return e.day()
	case e.hours[hour] == nil:
		return new(totals)
	default:
		return e.hours[hour]
	}
}

// shareStats answers for workers (0: the user; of user 0: the pool) and hours (24: the day; 0, -1, …: the current one
// and those before it, as far as they are of today).
func (s *Service) shareStats(form url.Values) httpapi.Legacy {
	user, err := strconv.ParseInt(form.Get("user_id"), 10, 32)
	workers, okWorkers := integers(form.Get("worker_id"))
	hours, okHours := integers(form.Get("hour"))
	if err != nil || !okWorkers || !okHours || len(workers)*len(hours) > maxAnswers {
		return invalidArgs
	}
	now := time.Now().UTC()
	data := make(map[string][]hourMeasures, len(workers))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, worker := range workers {
		list := make([]hourMeasures, len(hours))
		for i, h := range hours {
			hour := wholeDay
			if h != wholeDay {
				hour = wholeDay + 1 // no such hour
				if h <= 0 && h > -wholeDay {
					hour = now.Hour() + int(h)
				}
			}
			list[i] = hourMeasures{int(h), s.lookUp(now, key{user, worker}, hour).measures()}
		}
		data[strconv.FormatInt(worker, 10)] = list
	}
	return httpapi.Legacy{Data: data}
}

// integers reads numbers separated by commas; there must be one at least.
func integers(text string) ([]int64, bool) {
	var all []int64
	for field := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return nil, false
		}
		all = append(all, n)
	}
	return all, true
}
