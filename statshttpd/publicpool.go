package statshttpd

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/httpapi"
	"btcpool/internal/store"
)

// public-pool's API: an address is a user here, and what it calls a session is a worker, for a worker may have several
// connections.

const (
	mostAgents = 100 // kinds of software
	bestScores = 10
)

type (
	publicPoolInfo struct {
		BlockData  []publicPoolBlock `json:"blockData"`
		UserAgents []publicPoolAgent `json:"userAgents"`
		HighScores []publicPoolScore `json:"highScores"`
		Uptime     instant           `json:"uptime"`
	}
	publicPoolBlock struct {
		Height       int32  `json:"height"`
		MinerAddress string `json:"minerAddress"`
		Worker       string `json:"worker"`
		SessionID    string `json:"sessionId"`
	}
	publicPoolAgent struct {
		UserAgent      string  `json:"userAgent"`
		Count          int     `json:"count"`
		BestDifficulty float64 `json:"bestDifficulty"`
		TotalHashRate  float64 `json:"totalHashRate"`
	}
	publicPoolScore struct {
		UpdatedAt      instant `json:"updatedAt"`
		BestDifficulty float64 `json:"bestDifficulty"`
		UserAgent      string  `json:"bestDifficultyUserAgent"`
	}
	publicPoolPool struct {
		TotalHashRate float64           `json:"totalHashRate"`
		BlockHeight   int32             `json:"blockHeight"`
		TotalMiners   int               `json:"totalMiners"`
		BlocksFound   []publicPoolBlock `json:"blocksFound"`
		Fee           float64           `json:"fee"`
	}
	publicPoolNetwork struct {
		Blocks        int32   `json:"blocks"`
		Difficulty    float64 `json:"difficulty"`
		NetworkHashPS float64 `json:"networkhashps"`
		Chain         string  `json:"chain"`
		Warnings      string  `json:"warnings"`
	}
	publicPoolClient struct {
		BestDifficulty float64            `json:"bestDifficulty"`
		WorkersCount   int                `json:"workersCount"`
		Workers        []publicPoolWorker `json:"workers"`
	}
	publicPoolWorker struct {
		SessionID      string  `json:"sessionId"`
		Name           string  `json:"name"`
		BestDifficulty string  `json:"bestDifficulty"`
		HashRate       float64 `json:"hashRate"`
		StartTime      instant `json:"startTime"`
		LastSeen       instant `json:"lastSeen"`
	}
	publicPoolGroup struct {
		Name           string            `json:"name"`
		BestDifficulty float64           `json:"bestDifficulty"`
		ChartData      []publicPoolPoint `json:"chartData"`
	}
	publicPoolPoint struct {
		Label instant `json:"label"`
		Data  float64 `json:"data"`
	}
)

// instant is a time as JavaScript writes it.
type instant time.Time

// MarshalJSON writes milliseconds always.
func (t instant) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Time(t).UTC().Format("2006-01-02T15:04:05.000Z"))
}

func (s *Service) publicPool() []endpoint {
	return []endpoint{
		{"/api/info", "public_pool_info", s.publicPoolInfo, false},
		{"/api/info/chart", "public_pool_chart", s.publicPoolChart(s.thePool), false},
		{"/api/pool", "public_pool_pool", s.publicPoolPool, false},
		{"/api/network", "public_pool_network", s.publicPoolNetwork, false},
		{"/api/client/{user}", "public_pool_client", s.publicPoolClient, false},
		{"/api/client/{user}/chart", "public_pool_client_chart", s.publicPoolChart(s.theUser), false},
		{"/api/client/{user}/{worker}", "public_pool_worker", s.publicPoolWorker, false},
	}
}

func (s *Service) publicPoolInfo(r *http.Request, _ *httpapi.Query) (any, error) {
	now := s.moment()
	blocks, err := s.publicPoolBlocks(r.Context())
	if err != nil {
		return nil, err
	}
	a := publicPoolInfo{BlockData: blocks, UserAgents: s.agents(now), HighScores: []publicPoolScore{}, Uptime: instant(s.started)}
	best, _ := s.workerPage(now, "-best_share", func(*listed, brief) bool { return true }, "", bestScores, 0)
	for _, v := range best {
		if v.Best.Bits != 0 {
			a.HighScores = append(a.HighScores, publicPoolScore{instant(time.Unix(v.Best.At, 0)), v.Best.difficulty(), software(v.Agent)})
		}
	}
	return a, nil
}

func (s *Service) publicPoolPool(r *http.Request, _ *httpapi.Query) (any, error) {
	blocks, err := s.publicPoolBlocks(r.Context())
	if err != nil {
		return nil, err
	}
	n := s.network.Load()
	if n == nil {
		return nil, errUnavailable
	}
	v := s.poolView(s.moment())
	return publicPoolPool{TotalHashRate: v.Rate15m.orZero(), BlockHeight: n.Height - 1, TotalMiners: v.Online, BlocksFound: blocks}, nil
}

func (s *Service) publicPoolNetwork(*http.Request, *httpapi.Query) (any, error) {
	n := s.network.Load()
	if n == nil {
		return nil, errUnavailable
	}
	chain := s.cfg.Network
	if known, err := bitcoin.NetworkByName(chain); err == nil {
		chain = known.Chain
	}
	return publicPoolNetwork{Blocks: n.Height - 1, Difficulty: n.Difficulty, NetworkHashPS: networkRate(n.Difficulty), Chain: chain}, nil
}

func (s *Service) publicPoolBlocks(ctx context.Context) ([]publicPoolBlock, error) {
	blocks, err := s.takenBlocks(ctx, mostListed, 0)
	if err != nil {
		return nil, err
	}
	all := make([]publicPoolBlock, 0, len(blocks))
	for _, b := range slices.Backward(blocks) { // the oldest first
		told := s.board.toldBlock(b)
		all = append(all, publicPoolBlock{b.Height, told.User, told.Worker, sessionOf(b.WorkerID)})
	}
	return all, nil
}

// sessionOf names a worker as public-pool does a session, by 8 digits.
func sessionOf(workerID int64) string { return fmt.Sprintf("%08x", uint32(workerID)) }

func (s *Service) publicPoolClient(r *http.Request, _ *httpapi.Query) (any, error) {
	now := s.moment()
	u := s.findUser(now, r.PathValue("user"))
	if u == nil {
		return nil, errNoSuchUser
	}
	a := publicPoolClient{BestDifficulty: u.Best.difficulty(), Workers: []publicPoolWorker{}}
	views, total := s.workersOf(now, u.ID, isThere)
	a.WorkersCount = total
	for _, v := range views {
		a.Workers = append(a.Workers, publicPoolWorker{
			SessionID: sessionOf(v.WorkerID), Name: v.named(), BestDifficulty: fmt.Sprintf("%.2f", v.Best.difficulty()), HashRate: v.Rate15m.orZero(),
			StartTime: instant(time.Unix(cmp.Or(v.Since, v.First), 0)), LastSeen: instant(time.Unix(max(v.Last, v.Since), 0)),
		})
	}
	return a, nil
}

func (s *Service) publicPoolWorker(r *http.Request, _ *httpapi.Query) (any, error) {
	v := s.board.find(s.moment(), r.PathValue("user"), r.PathValue("worker"))
	if v == nil {
		return nil, errNoSuchWorker
	}
	chart, err := s.publicPoolPoints(r.Context(), store.StatsKey{UserID: v.UserID, WorkerID: v.WorkerID})
	if err != nil {
		return nil, err
	}
	return publicPoolGroup{v.named(), math.Floor(v.Best.difficulty()), chart}, nil
}

func (s *Service) publicPoolChart(of who) func(*http.Request, *httpapi.Query) (any, error) {
	return func(r *http.Request, _ *httpapi.Query) (any, error) {
		key, err := of(r)
		if err != nil {
			return nil, err
		}
		return s.publicPoolPoints(r.Context(), key)
	}
}

func (s *Service) publicPoolPoints(ctx context.Context, of store.StatsKey) ([]publicPoolPoint, error) {
	starts, rates, err := s.tenMinutes(ctx, of)
	points := make([]publicPoolPoint, 0, len(starts))
	for i, at := range starts {
		points = append(points, publicPoolPoint{instant(at), math.Round(rates[i])})
	}
	return points, err
}

// software is the name of a miner's software, without version and machine.
func software(agent string) string {
	if i := strings.IndexAny(agent, "/ "); i > 0 {
		agent = agent[:i]
	}
	if agent == "" {
		return "unknown"
	}
	return agent
}

// agents returns the kinds of software that have the most workers online, of those that had a share.
func (s *Service) agents(now time.Time) []publicPoolAgent {
	return s.agentOrders.get("", now, func(*order[publicPoolAgent]) *order[publicPoolAgent] {
		sums := make(map[string]publicPoolAgent)
		for chunk := range slices.Chunk(s.workers(now, "name").rows, orderChunk) {
			s.board.mu.RLock()
			for i := range chunk {
				l := &chunk[i]
				if l.state&isOnline == 0 || l.state&isWaiting != 0 {
					continue
				}
				name := software(l.w.Agent)
				sum := sums[name]
				sum.UserAgent = name
				sum.Count++
				sum.BestDifficulty = max(sum.BestDifficulty, l.w.best.difficulty())
				sum.TotalHashRate += l.w.rate(now.Unix(), quarterHour).orZero()
				sums[name] = sum
			}
			s.board.mu.RUnlock()
		}
		all := slices.SortedFunc(maps.Values(sums), func(x, y publicPoolAgent) int {
			return cmp.Or(cmp.Compare(y.Count, x.Count), strings.Compare(x.UserAgent, y.UserAgent))
		})
		return &order[publicPoolAgent]{rows: append([]publicPoolAgent{}, all[:min(len(all), mostAgents)]...)}
	}).rows
}
