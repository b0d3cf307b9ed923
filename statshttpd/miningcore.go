package statshttpd

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/httpapi"
	"btcpool/internal/store"
)

// miningcore's API of a single pool, whose id is pool_id. There are no payments, and fees are not known here.

type (
	miningcorePools struct {
		Pools []miningcorePool `json:"pools"`
	}
	miningcoreOne struct {
		Pool miningcorePool `json:"pool"`
	}
	miningcorePool struct {
		ID                string                    `json:"id"`
		Coin              miningcoreCoin            `json:"coin"`
		Ports             map[string]miningcorePort `json:"ports"`
		PaymentProcessing miningcorePayments        `json:"paymentProcessing"`
		PoolFeePercent    float64                   `json:"poolFeePercent"`
		Address           string                    `json:"address"`
		PoolStats         miningcoreStats           `json:"poolStats"`
		NetworkStats      miningcoreNetwork         `json:"networkStats"`
		TopMiners         []miningcoreMiner         `json:"topMiners"`
		TotalPaid         float64                   `json:"totalPaid"`
		TotalBlocks       int64                     `json:"totalBlocks"`
		LastPoolBlockTime *time.Time                `json:"lastPoolBlockTime"`
		PoolEffort        float64                   `json:"poolEffort"`
	}
	miningcoreCoin struct {
		Type          string `json:"type"`
		Name          string `json:"name"`
		Symbol        string `json:"symbol"`
		Family        string `json:"family"`
		Algorithm     string `json:"algorithm"`
		CanonicalName string `json:"canonicalName"`
	}
	miningcorePort struct {
		ListenAddress string  `json:"listenAddress"`
		Name          string  `json:"name"`
		Difficulty    float64 `json:"difficulty"`
		TLS           bool    `json:"tls"`
	}
	miningcorePayments struct {
		Enabled        bool    `json:"enabled"`
		MinimumPayment float64 `json:"minimumPayment"`
		PayoutScheme   string  `json:"payoutScheme"`
	}
	miningcoreStats struct {
		ConnectedMiners int     `json:"connectedMiners"`
		PoolHashrate    uint64  `json:"poolHashrate"`
		SharesPerSecond float64 `json:"sharesPerSecond"`
	}
	miningcoreNetwork struct {
		NetworkType       string  `json:"networkType"`
		NetworkHashrate   float64 `json:"networkHashrate"`
		NetworkDifficulty float64 `json:"networkDifficulty"`
		BlockHeight       int32   `json:"blockHeight"`
		ConnectedPeers    int     `json:"connectedPeers"`
		RewardType        string  `json:"rewardType"`
	}
	miningcoreMiner struct {
		Miner           string  `json:"miner"`
		Hashrate        float64 `json:"hashrate"`
		SharesPerSecond float64 `json:"sharesPerSecond"`
	}
	miningcoreBlock struct {
		PoolID               string    `json:"poolId"`
		BlockHeight          int32     `json:"blockHeight"`
		NetworkDifficulty    float64   `json:"networkDifficulty"`
		Status               string    `json:"status"`
		ConfirmationProgress float64   `json:"confirmationProgress"`
		Effort               *float64  `json:"effort"`
		ConfirmationData     string    `json:"transactionConfirmationData"`
		Reward               float64   `json:"reward"`
		Hash                 string    `json:"hash"`
		Miner                string    `json:"miner"`
		Created              time.Time `json:"created"`
	}
	miningcoreOneMiner struct {
		PendingShares  float64               `json:"pendingShares"`
		PendingBalance float64               `json:"pendingBalance"`
		TotalPaid      float64               `json:"totalPaid"`
		TodayPaid      float64               `json:"todayPaid"`
		Performance    miningcorePerformance `json:"performance"`
		// Samples have the user's sum under one worker without a name.
		Samples []miningcorePerformance `json:"performanceSamples"`
	}
	miningcorePerformance struct {
		Created time.Time                 `json:"created"`
		Workers map[string]miningcoreWork `json:"workers"`
	}
	miningcoreWork struct {
		Hashrate        float64 `json:"hashrate"`
		SharesPerSecond float64 `json:"sharesPerSecond"`
	}
)

const (
	topMiners    = 15
	blockMatures = 100 // confirmations until a block's reward may be spent
)

var errNoSuchPool = httpapi.Errorf(http.StatusNotFound, "not_found", "no such pool is known")

func (s *Service) miningcore() []endpoint {
	of := func(answer func(*http.Request, *httpapi.Query) (any, error)) func(*http.Request, *httpapi.Query) (any, error) {
		return func(r *http.Request, q *httpapi.Query) (any, error) {
			if r.PathValue("pool") != s.cfg.PoolID {
				return nil, errNoSuchPool
			}
			return answer(r, q)
		}
	}
	return []endpoint{
		{"/api/pools", "miningcore_pools", s.miningcorePools, false},
		{"/api/pools/{pool}", "miningcore_pool", of(s.miningcoreOne), false},
		{"/api/pools/{pool}/blocks", "miningcore_blocks", of(s.miningcoreBlocks), false},
		{"/api/pools/{pool}/miners", "miningcore_miners", of(s.miningcoreMiners), false},
		{"/api/pools/{pool}/miners/{user}", "miningcore_miner", of(s.miningcoreMiner), false},
	}
}

func (s *Service) miningcorePools(*http.Request, *httpapi.Query) (any, error) {
	pool, err := s.miningcorePool()
	return miningcorePools{[]miningcorePool{pool}}, err
}

func (s *Service) miningcoreOne(*http.Request, *httpapi.Query) (any, error) {
	pool, err := s.miningcorePool()
	return miningcoreOne{pool}, err
}

func (s *Service) miningcorePool() (miningcorePool, error) {
	now := s.moment()
	v := s.poolView(now)
	n, l := s.network.Load(), s.ledger.Load()
	if n == nil || l == nil {
		return miningcorePool{}, errUnavailable
	}
	network := s.cfg.Network
	if known, err := bitcoin.NetworkByName(network); err == nil {
		network = strings.ToUpper(known.Chain[:1]) + known.Chain[1:]
	}
	a := miningcorePool{
		ID:        s.cfg.PoolID,
		Coin:      miningcoreCoin{coinSymbol, coinName, coinSymbol, "bitcoin", coinAlgorithm, coinName},
		Ports:     make(map[string]miningcorePort),
		PoolStats: miningcoreStats{v.Users, uint64(v.Rate15m.orZero()), v.Rate15m.perSecond(quarterHour)},
		NetworkStats: miningcoreNetwork{
			NetworkType: network, NetworkHashrate: networkRate(n.Difficulty), NetworkDifficulty: n.Difficulty, BlockHeight: n.Height - 1, RewardType: "POW",
		},
		TopMiners: s.miningcorePage(now, topMiners, 0),
	}
	open, confirmed, orphaned, err := s.takenCounts()
	if err != nil {
		return a, err
	}
	a.TotalBlocks = open + confirmed + orphaned
	if l.Last != nil {
		a.LastPoolBlockTime = &l.Last.CreatedAt
	}
	_, a.PoolEffort, _ = s.effort(now)
	for _, place := range s.places {
		if u, err := url.Parse(place.URL); err == nil && a.Ports[u.Port()] == (miningcorePort{}) { // the first place of a port
			a.Ports[u.Port()] = miningcorePort{u.Hostname(), place.Note, 0, place.TLS}
		}
	}
	return a, nil
}

// pageOf reads which page is asked for.
func pageOf(q *httpapi.Query) (limit, offset int, err error) {
	limit = q.Integer("pageSize", topMiners, 1, mostListed)
	page := q.Integer("page", 0, 0, maxOffset/mostListed)
	return limit, page * limit, q.Err()
}

func (s *Service) miningcoreMiners(_ *http.Request, q *httpapi.Query) (any, error) {
	limit, offset, err := pageOf(q)
	if err != nil {
		return nil, err
	}
	return s.miningcorePage(s.moment(), limit, offset), nil
}

func (s *Service) miningcorePage(now time.Time, limit, offset int) []miningcoreMiner {
	views, _ := s.userPage(now, "-hashrate_15m", func(_ *listedUser, b brief) bool { return b.state&isActive != 0 }, "", limit, offset)
	all := []miningcoreMiner{}
	for _, v := range views {
		all = append(all, miningcoreMiner{v.called(), v.Rate15m.orZero(), v.Rate15m.perSecond(quarterHour)})
	}
	return all
}

func (s *Service) miningcoreBlocks(r *http.Request, q *httpapi.Query) (any, error) {
	limit, offset, err := pageOf(q)
	if err != nil {
		return nil, err
	}
	blocks, err := s.takenBlocks(r.Context(), limit, offset)
	if err != nil {
		return nil, err
	}
	all := make([]miningcoreBlock, 0, len(blocks))
	for _, b := range blocks {
		a := miningcoreBlock{
			PoolID: s.cfg.PoolID, BlockHeight: b.Height, NetworkDifficulty: blockDifficulty(b), Status: "pending",
			ConfirmationProgress: min(float64(b.Confirmations)/blockMatures, 1), Effort: s.answerOfBlock(b).Effort, ConfirmationData: b.Hash,
			Reward: float64(b.RewardSat) / satPerCoin, Hash: b.Hash, Miner: s.board.toldBlock(b).User, Created: b.CreatedAt,
		}
		switch b.State {
		case store.Confirmed:
			a.Status, a.ConfirmationProgress = "confirmed", 1
		case store.Orphaned:
			a.Status, a.ConfirmationProgress = "orphaned", 0
		}
		all = append(all, a)
	}
	return all, nil
}

func (s *Service) miningcoreMiner(r *http.Request, _ *httpapi.Query) (any, error) {
	now := s.moment()
	u := s.findUser(now, r.PathValue("user"))
	if u == nil {
		return nil, errNoSuchUser
	}
	a := miningcoreOneMiner{Performance: miningcorePerformance{now, make(map[string]miningcoreWork)}}
	views, _ := s.workersOf(now, u.ID, isThere)
	for _, v := range views {
		a.Performance.Workers[v.named()] = miningcoreWork{v.Rate15m.orZero(), v.Rate15m.perSecond(quarterHour)}
	}
	var err error
	a.Samples, err = s.miningcoreSamples(r.Context(), store.StatsKey{UserID: u.ID})
	return a, err
}

func (s *Service) miningcoreSamples(ctx context.Context, of store.StatsKey) ([]miningcorePerformance, error) {
	starts, rates, err := s.tenMinutes(ctx, of)
	samples := make([]miningcorePerformance, 0, len(starts))
	for i, at := range starts {
		samples = append(samples, miningcorePerformance{at, map[string]miningcoreWork{"": {Hashrate: roundRate(rates[i])}}})
	}
	return samples, err
}
