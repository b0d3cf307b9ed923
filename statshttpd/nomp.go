package statshttpd

import (
	"fmt"
	"math"
	"net/http"
	"strconv"

	"btcpool/internal/httpapi"
	"btcpool/internal/store"
)

// NOMP's API (node-open-mining-portal) of a portal with one pool, whose name is pool_id. What is of no time there is of
// the last hour here.

type (
	nompStats struct {
		Time   int64               `json:"time"`
		Global nompGlobal          `json:"global"`
		Algos  map[string]nompAlgo `json:"algos"`
		Pools  map[string]nompPool `json:"pools"`
	}
	nompGlobal struct {
		Workers  int     `json:"workers"`
		Hashrate float64 `json:"hashrate"`
	}
	nompAlgo struct {
		nompGlobal
		HashrateString string `json:"hashrateString"`
	}
	nompPool struct {
		Name           string                `json:"name"`
		Symbol         string                `json:"symbol"`
		Algorithm      string                `json:"algorithm"`
		PoolStats      nompShares            `json:"poolStats"`
		Blocks         nompBlocks            `json:"blocks"`
		Workers        map[string]nompWorker `json:"workers"`
		Hashrate       float64               `json:"hashrate"`
		WorkerCount    int                   `json:"workerCount"`
		HashrateString string                `json:"hashrateString"`
	}
	nompShares struct { // texts, as Redis has them
		ValidShares   string `json:"validShares"`
		ValidBlocks   string `json:"validBlocks"`
		InvalidShares string `json:"invalidShares"`
		TotalPaid     string `json:"totalPaid"`
	}
	nompBlocks struct {
		Pending   int64 `json:"pending"`
		Confirmed int64 `json:"confirmed"`
		Orphaned  int64 `json:"orphaned"`
	}
	nompWorker struct {
		Shares         float64 `json:"shares"`
		InvalidShares  float64 `json:"invalidshares"`
		HashrateString string  `json:"hashrateString"`
	}
	nompPast struct {
		Time  int64                   `json:"time"`
		Pools map[string]nompPastPool `json:"pools"`
	}
	nompPastPool struct {
		Hashrate    float64    `json:"hashrate"`
		WorkerCount *int       `json:"workerCount"` // null where it is not known any more
		Blocks      nompBlocks `json:"blocks"`      // of now
	}
)

const (
	nompLive    = "/api/live_stats"
	nompMinutes = 12 * 60 // of pool_stats

	mostNompListeners = 100
)

func (s *Service) nomp() []endpoint {
	return []endpoint{
		{"/api/stats", "nomp_stats", func(*http.Request, *httpapi.Query) (any, error) { return s.nompStats() }, false},
		{"/api/pool_stats", "nomp_pool_stats", s.nompPast, false},
	}
}

func (s *Service) nompBlocks() (b nompBlocks, err error) {
	b.Pending, b.Confirmed, b.Orphaned, err = s.takenCounts()
	return b, err
}

func (s *Service) nompStats() (any, error) {
	now := s.moment()
	blocks, err := s.nompBlocks()
	if err != nil {
		return nil, err
	}
	v := s.poolView(now)
	rate := v.Rate5m.orZero()
	pool := nompPool{
		Name: s.cfg.PoolID, Symbol: coinSymbol, Algorithm: coinAlgorithm, Blocks: blocks, Workers: make(map[string]nompWorker),
		Hashrate: rate, WorkerCount: v.Online, HashrateString: readable(rate),
		PoolStats: nompShares{
			ValidShares: strconv.FormatUint(v.Accepted.Shares, 10), InvalidShares: strconv.FormatUint(v.Stale.Shares+v.Rejected.Shares, 10),
			ValidBlocks: strconv.FormatInt(blocks.Pending+blocks.Confirmed+blocks.Orphaned, 10), TotalPaid: "0",
		},
	}
	views, _ := s.workerPage(now, "-hashrate_5m", func(_ *listed, b brief) bool { return b.state&isOnline != 0 && b.state&isWaiting == 0 }, "", mostListed, 0)
	for _, w := range views {
		user := userView{ID: w.UserID, Name: w.UserName}
		pool.Workers[user.called()+"."+w.named()] = nompWorker{
			Shares:         w.Rate5m.orZero() * float64(fiveMinutes) / hashesPerDifficulty,
			InvalidShares:  (w.Stale.Work.Float() + w.Rejected.Work.Float()) / hashesPerDifficulty,
			HashrateString: readable(w.Rate5m.orZero()),
		}
	}
	sums := nompGlobal{v.Online, rate}
	return nompStats{
		Time: now.Unix(), Global: sums,
		Algos: map[string]nompAlgo{coinAlgorithm: {sums, readable(rate)}},
		Pools: map[string]nompPool{s.cfg.PoolID: pool},
	}, nil
}

// nompPast answers with a point for each minute that is known, and one for now.
func (s *Service) nompPast(r *http.Request, _ *httpapi.Query) (any, error) {
	blocks, err := s.nompBlocks()
	if err != nil {
		return nil, err
	}
	p := newParts(steps["minute"], s.now().UTC(), nompMinutes)
	if err := s.fromMinutes(r.Context(), p, store.StatsKey{}); err != nil {
		return nil, err
	}
	all := []nompPast{}
	for i, hashes := range p.accepted {
		if !math.IsNaN(hashes) {
			point := nompPastPool{Hashrate: roundRate(hashes / p.long.Seconds()), Blocks: blocks}
			all = append(all, nompPast{p.time(i).Unix(), map[string]nompPastPool{s.cfg.PoolID: point}})
		}
	}
	now := s.moment()
	v := s.poolView(now)
	latest := nompPastPool{v.Rate5m.orZero(), &v.Online, blocks}
	return append(all, nompPast{now.Unix(), map[string]nompPastPool{s.cfg.PoolID: latest}}), nil
}

// readable is a hashrate as NOMP writes it, from KH on.
func readable(rate float64) string {
	units := []string{" KH", " MH", " GH", " TH", " PH"}
	i := 0
	for rate /= 1000; rate > 1000 && i < len(units)-1; i++ {
		rate /= 1000
	}
	return fmt.Sprintf("%.2f%s", rate, units[i])
}

// serveLiveStats sends the statistics again and again, to few: they are large.
func (s *Service) serveLiveStats(w http.ResponseWriter, r *http.Request) {
	defer s.nompListeners.Add(-1)
	if s.nompListeners.Add(1) > mostNompListeners {
		httpapi.Refuse(w, errTooManyListeners)
		return
	}
	s.stream(w, r, []topic{{kind: nompKind}})
}

const nompKind = "nomp"
