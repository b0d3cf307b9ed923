package statshttpd

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"btcpool/internal/httpapi"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

// The answers of /api/v1, described in openapi.yaml. Hashrates are in H/s, difficulties in shares of difficulty 1,
// times RFC 3339 in UTC; a null says that something is not known.
type (
	poolAnswer struct {
		Time          time.Time      `json:"time"`
		Starting      bool           `json:"starting"`
		Version       string         `json:"version"`
		UptimeSeconds int64          `json:"uptime_seconds"`
		StratumURL    string         `json:"stratum_url"`
		Stratum       []Place        `json:"stratum"`
		Chain         string         `json:"chain"`
		Away          []string       `json:"away"`
		SharesAsOf    *time.Time     `json:"shares_as_of"`
		Hashrate      spans          `json:"hashrate"`
		HashrateError spans          `json:"hashrate_error"`
		WorkersOnline int            `json:"workers_online"`
		Waiting       int            `json:"workers_waiting"`
		WorkersKnown  int            `json:"workers_known"`
		UsersOnline   int            `json:"users_online"`
		Shares        sharesAnswer   `json:"shares_1h"`
		Network       *networkAnswer `json:"network"`
		Round         *roundAnswer   `json:"round"`
		Blocks        *countsAnswer  `json:"blocks"`
		LastBlock     *blockAnswer   `json:"last_block"`
		Series        seriesAnswer   `json:"series"`
	}
	spans struct {
		M1  *float64 `json:"1m"`
		M5  *float64 `json:"5m"`
		M15 *float64 `json:"15m"`
		H1  *float64 `json:"1h"`
	}
	amountAnswer struct {
		Shares     uint64  `json:"shares"`
		Difficulty float64 `json:"difficulty"`
	}
	reasonAnswer struct {
		Status int32  `json:"status"`
		Reason string `json:"reason"`
		amountAnswer
	}
	sharesAnswer struct {
		Accepted    amountAnswer   `json:"accepted"`
		Stale       amountAnswer   `json:"stale"`
		Rejected    amountAnswer   `json:"rejected"`
		RejectRatio float64        `json:"reject_ratio"`
		Reasons     []reasonAnswer `json:"reasons"`
	}
	networkAnswer struct {
		Height        int32   `json:"height"`
		Difficulty    float64 `json:"difficulty"`
		Hashrate      float64 `json:"hashrate"`
		JobAgeSeconds int64   `json:"job_age_seconds"`
	}
	roundAnswer struct {
		Since      *time.Time `json:"since"`
		Difficulty float64    `json:"difficulty"`
		Effort     float64    `json:"effort"`
	}
	countsAnswer struct {
		Total     int64 `json:"total"`
		Submitted int64 `json:"submitted"`
		Accepted  int64 `json:"accepted"`
		Confirmed int64 `json:"confirmed"`
		Orphaned  int64 `json:"orphaned"`
		Rejected  int64 `json:"rejected"`
	}
	seriesAnswer struct {
		Start       time.Time `json:"start"`
		StepSeconds int       `json:"step_seconds"`
		Hashrate    []float64 `json:"hashrate"`
	}
	workersAnswer struct {
		Time     time.Time      `json:"time"`
		Starting bool           `json:"starting"`
		Total    int            `json:"total"`
		Limit    int            `json:"limit"`
		Offset   int            `json:"offset"`
		Workers  []workerAnswer `json:"workers"`
	}
	workerAnswer struct {
		User        string       `json:"user"`
		UserID      int32        `json:"user_id"`
		Worker      string       `json:"worker"`
		WorkerID    string       `json:"worker_id"`
		Agent       string       `json:"agent"`
		Through     *linkAnswer  `json:"through"`
		Online      bool         `json:"online"`
		LastShareAt *time.Time   `json:"last_share_at"`
		Hashrate    spans        `json:"hashrate"`
		Shares      sharesAnswer `json:"shares_1h"`
	}
	linkAnswer struct {
		Address string `json:"address"`
		Session string `json:"session"`
	}
	oneWorkerAnswer struct {
		Time     time.Time `json:"time"`
		Starting bool      `json:"starting"`
		workerAnswer
		HashrateError spans `json:"hashrate_error"`
	}
	blocksAnswer struct {
		Time   time.Time     `json:"time"`
		Total  int64         `json:"total"`
		Limit  int           `json:"limit"`
		Offset int           `json:"offset"`
		Blocks []blockAnswer `json:"blocks"`
	}
	blockAnswer struct {
		Height        int32     `json:"height"`
		Hash          string    `json:"hash"`
		State         string    `json:"state"`
		Confirmations int64     `json:"confirmations"`
		Finder        string    `json:"finder"`
		RewardSat     int64     `json:"reward"`
		Time          time.Time `json:"time"`
	}
)

const maxOffset = 10_000_000

func (s *Service) moment() time.Time { return s.now().UTC().Truncate(time.Second) }

func (s *Service) getPool(_ *http.Request, q *httpapi.Query) (any, error) {
	if err := q.Done(); err != nil {
		return nil, err
	}
	now := s.moment()
	v := s.board.poolView(now)
	a := poolAnswer{
		Time:          now,
		Starting:      !s.replayed.Load(),
		Version:       service.Version(),
		UptimeSeconds: int64(now.Sub(s.started).Seconds()),
		Stratum:       append([]Place{}, s.places...),
		Chain:         s.cfg.Network,
		Away:          s.away(),
		SharesAsOf:    s.sharesAsOf(),
		Hashrate:      v.spans(),
		HashrateError: v.errorSpans(),
		WorkersOnline: v.Online,
		Waiting:       v.Waiting,
		WorkersKnown:  v.Known,
		UsersOnline:   v.Users,
		Shares:        v.shares(),
		Series: seriesAnswer{
			Start:       time.Unix(v.MinutesEnd-int64(len(v.Minutes))*coarseWidth, 0).UTC(),
			StepSeconds: coarseWidth,
			Hashrate:    make([]float64, len(v.Minutes)),
		},
	}
	if len(s.places) > 0 {
		a.StratumURL = s.places[0].URL
	}
	for i, minute := range v.Minutes {
		a.Series.Hashrate[i] = minute.Work.Float() / coarseWidth
	}
	if n := s.network.Load(); n != nil {
		a.Network = &networkAnswer{
			Height:        n.Height - 1,
			Difficulty:    n.Difficulty,
			Hashrate:      networkRate(n.Difficulty),
			JobAgeSeconds: max(int64(now.Sub(n.JobTime).Seconds()), 0),
		}
	}
	if l := s.ledger.Load(); l != nil {
		a.Blocks = countsOf(l.Counts)
		if l.Last != nil {
			a.LastBlock = new(answerOfBlock(*l.Last))
		}
		if hashes, effort, ok := s.effort(now); ok {
			a.Round = &roundAnswer{Difficulty: hashes / hashesPerDifficulty, Effort: effort}
			if l.Last != nil {
				a.Round.Since = &a.LastBlock.Time
			}
		}
	}
	return a, nil
}

func (t *tally) spans() spans {
	return spans{t.Rate1m.measured(), t.Rate5m.measured(), t.Rate15m.measured(), t.Rate1h.measured()}
}

func (t *tally) errorSpans() spans {
	return spans{t.Rate1m.relativeError(), t.Rate5m.relativeError(), t.Rate15m.relativeError(), t.Rate1h.relativeError()}
}

// measured is the rate in H/s, nil while it is not known.
func (r rate) measured() *float64 {
	if !r.Known {
		return nil
	}
	return &r.HashesPerSecond
}

// relativeError is the standard error of a rate, relative to it: shares come as a Poisson process. Nil without shares,
// or while the rate is not known.
func (r rate) relativeError() *float64 {
	if r.Shares == 0 || !r.Known {
		return nil
	}
	return new(1 / math.Sqrt(float64(r.Shares)))
}

func (t *tally) shares() sharesAnswer {
	a := sharesAnswer{
		Accepted:    answerOfAmount(t.Accepted),
		Stale:       answerOfAmount(t.Stale),
		Rejected:    answerOfAmount(t.Rejected),
		RejectRatio: t.rejectRatio(),
		Reasons:     make([]reasonAnswer, 0, len(t.Reasons)),
	}
	for _, status := range sortedReasons(t.Reasons) {
		a.Reasons = append(a.Reasons, reasonAnswer{int32(status), status.Text(), answerOfAmount(t.Reasons[status])})
	}
	return a
}

func answerOfAmount(a amount) amountAnswer {
	return amountAnswer{a.Shares, a.Work.Float() / hashesPerDifficulty}
}

func countsOf(counts map[store.BlockState]int64) *countsAnswer {
	a := &countsAnswer{
		Submitted: counts[store.Submitted],
		Accepted:  counts[store.Accepted],
		Confirmed: counts[store.Confirmed],
		Orphaned:  counts[store.Orphaned],
		Rejected:  counts[store.Rejected],
	}
	a.Total = a.Submitted + a.Accepted + a.Confirmed + a.Orphaned + a.Rejected
	return a
}

// workerOrders are the values of sort; "-" before one turns it round.
var workerOrders = map[string]func(w *worker, now int64) float64{
	"name":         nil,
	"hashrate_1m":  func(w *worker, now int64) float64 { return w.rate(now, minute).HashesPerSecond },
	"hashrate_5m":  func(w *worker, now int64) float64 { return w.rate(now, fiveMinutes).HashesPerSecond },
	"hashrate_15m": func(w *worker, now int64) float64 { return w.rate(now, quarterHour).HashesPerSecond },
	"hashrate_1h":  func(w *worker, now int64) float64 { return w.rate(now, hour).HashesPerSecond },
	"last_share":   func(w *worker, _ int64) float64 { return float64(w.last) },
	"reject_ratio": func(w *worker, now int64) float64 { t := w.tally(now); return t.rejectRatio() },
}

// rejectRatio is the part of all shares that was stale or rejected, by number.
func (t *tally) rejectRatio() float64 {
	refused := t.Stale.Shares + t.Rejected.Shares
	if refused == 0 {
		return 0
	}
	return float64(refused) / float64(refused+t.Accepted.Shares)
}

func (s *Service) getWorkers(_ *http.Request, q *httpapi.Query) (any, error) {
	orders := []string{"-hashrate_5m"}
	for order := range workerOrders {
		orders = append(orders, order, "-"+order)
	}
	slices.Sort(orders[1:])
	var (
		now    = s.moment()
		order  = q.Choice("sort", orders...)
		online = q.Choice("online", "", "true", "false")
		search = strings.ToLower(q.Text("q", "", maxNameBytes))
		limit  = q.Integer("limit", 100, 1, 1000)
		offset = q.Integer("offset", 0, 0, maxOffset)
	)
	if err := q.Done(); err != nil {
		return nil, err
	}
	by, down := strings.CutPrefix(order, "-")
	views, total := s.board.page(now, selection{
		keep: func(user string, w *worker, isOnline bool) bool {
			return (online == "" || online == strconv.FormatBool(isOnline)) &&
				(search == "" || strings.Contains(strings.ToLower(user+"."+w.Name+" "+w.Agent+" "+w.through.address()), search))
		},
		rank: workerOrders[by], down: down, limit: limit, offset: offset,
	})
	a := workersAnswer{
		Time: now, Starting: !s.replayed.Load(),
		Total: total, Limit: limit, Offset: offset, Workers: []workerAnswer{},
	}
	for _, v := range views {
		a.Workers = append(a.Workers, answerOfWorker(v))
	}
	return a, nil
}

func answerOfWorker(v *workerView) workerAnswer {
	a := workerAnswer{
		User: v.UserName, UserID: v.UserID,
		Worker: v.Name, WorkerID: strconv.FormatInt(v.WorkerID, 10),
		Agent: v.Agent, Online: v.Online,
		Hashrate: v.spans(), Shares: v.shares(),
	}
	if v.Through != (farmLink{}) {
		a.Through = &linkAnswer{v.Through.address(), fmt.Sprintf("%08x", v.Through.Session)}
	}
	if v.LastShare != 0 {
		a.LastShareAt = new(time.Unix(v.LastShare, 0).UTC())
	}
	return a
}

// address is "" when it is not known.
func (l farmLink) address() string {
	if !l.Proxy.IsValid() {
		return ""
	}
	return l.Proxy.String()
}

func (s *Service) getWorker(r *http.Request, q *httpapi.Query) (any, error) {
	if err := q.Done(); err != nil {
		return nil, err
	}
	now := s.moment()
	v := s.board.find(now, r.PathValue("user"), r.PathValue("worker"))
	if v == nil {
		return nil, errNoSuchWorker
	}
	return oneWorkerAnswer{now, !s.replayed.Load(), answerOfWorker(v), v.errorSpans()}, nil
}

func (s *Service) getBlocks(r *http.Request, q *httpapi.Query) (any, error) {
	limit := q.Integer("limit", 50, 1, 500)
	offset := q.Integer("offset", 0, 0, maxOffset)
	if err := q.Done(); err != nil {
		return nil, err
	}
	blocks, total, err := s.blocks(r.Context(), limit, offset)
	if err != nil {
		return nil, err
	}
	a := blocksAnswer{Time: s.moment(), Total: total, Limit: limit, Offset: offset, Blocks: []blockAnswer{}}
	for _, b := range blocks {
		a.Blocks = append(a.Blocks, answerOfBlock(b))
	}
	return a, nil
}

func answerOfBlock(b store.Block) blockAnswer {
	return blockAnswer{
		Height: b.Height, Hash: b.Hash, State: string(b.State), Confirmations: b.Confirmations,
		Finder: b.WorkerName, RewardSat: b.RewardSat, Time: b.CreatedAt.UTC(),
	}
}
