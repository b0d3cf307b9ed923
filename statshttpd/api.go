package statshttpd

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"btcpool/internal/bitcoin"
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
		WorkersSilent int            `json:"workers_silent"`
		UsersOnline   int            `json:"users_online"`
		Shares        sharesAnswer   `json:"shares_1h"`
		Network       *networkAnswer `json:"network"`
		Round         *roundAnswer   `json:"round"`
		Blocks        *countsAnswer  `json:"blocks"`
		LastBlock     *blockAnswer   `json:"last_block"`
		Best          *bestAnswer    `json:"best_share"`
		RoundBest     *bestAnswer    `json:"round_best_share"`
		Series        seriesAnswer   `json:"series"`
	}
	spans struct {
		M1  *float64 `json:"1m"`
		M5  *float64 `json:"5m"`
		M15 *float64 `json:"15m"`
		H1  *float64 `json:"1h"`
		D1  *float64 `json:"1d"`
	}
	bestAnswer struct {
		Difficulty float64   `json:"difficulty"`
		Time       time.Time `json:"time"`
	}
	// pastAnswer is what is remembered of the time before the windows.
	pastAnswer struct {
		FirstShareAt *time.Time  `json:"first_share_at"`
		LastShareAt  *time.Time  `json:"last_share_at"`
		Best         *bestAnswer `json:"best_share"`
		RoundBest    *bestAnswer `json:"round_best_share"`
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
		User           string      `json:"user"`
		UserID         int32       `json:"user_id"`
		Worker         string      `json:"worker"`
		WorkerID       string      `json:"worker_id"`
		Agent          string      `json:"agent"`
		Through        *linkAnswer `json:"through"`
		Online         bool        `json:"online"`
		Waiting        bool        `json:"waiting"`
		Sessions       int         `json:"sessions"`
		ConnectedSince *time.Time  `json:"connected_since"`
		Server         *int        `json:"server"`
		Address        string      `json:"address"`
		Difficulty     *float64    `json:"difficulty"`
		pastAnswer
		Hashrate spans        `json:"hashrate"`
		Shares   sharesAnswer `json:"shares_1h"`
		Group    string       `json:"group"`
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
		SubPool       string    `json:"sub_pool"`
		Time          time.Time `json:"time"`
		Difficulty    *float64  `json:"difficulty"`
		Effort        *float64  `json:"effort"`
	}
	usersAnswer struct {
		Time     time.Time    `json:"time"`
		Starting bool         `json:"starting"`
		Total    int          `json:"total"`
		Limit    int          `json:"limit"`
		Offset   int          `json:"offset"`
		Users    []userAnswer `json:"users"`
	}
	userAnswer struct {
		User          string `json:"user"`
		UserID        int32  `json:"user_id"`
		Workers       int    `json:"workers"`
		WorkersOnline int    `json:"workers_online"`
		WorkersSilent int    `json:"workers_silent"`
		pastAnswer
		Hashrate spans        `json:"hashrate"`
		Shares   sharesAnswer `json:"shares_1h"`
	}
	oneUserAnswer struct {
		Time     time.Time `json:"time"`
		Starting bool      `json:"starting"`
		userAnswer
		HashrateError spans `json:"hashrate_error"`
	}
	serversAnswer struct {
		Time    time.Time      `json:"time"`
		Servers []serverAnswer `json:"servers"`
	}
	serverAnswer struct {
		Server       int          `json:"server"`
		ServingSince *time.Time   `json:"serving_since"`
		EndedAt      *time.Time   `json:"ended_at"`
		LastShareAt  *time.Time   `json:"last_share_at"`
		Workers      int          `json:"workers"`
		Hashrate     spans        `json:"hashrate"`
		Shares       sharesAnswer `json:"shares_1h"`
	}
)

const maxOffset = 10_000_000

func (s *Service) moment() time.Time { return s.now().UTC().Truncate(time.Second) }

func (s *Service) getPool(_ *http.Request, q *httpapi.Query) (any, error) {
	if err := q.Done(); err != nil {
		return nil, err
	}
	return s.pool()
}

func (s *Service) pool() (any, error) {
	now := s.moment()
	v := s.poolView(now)
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
		WorkersSilent: v.Silent,
		UsersOnline:   v.Users,
		Shares:        v.shares(),
		Best:          answerOfBest(v.Best),
		RoundBest:     answerOfBest(v.RoundBest),
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
			a.LastBlock = new(s.answerOfBlock(*l.Last))
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
	return spans{t.Rate1m.measured(), t.Rate5m.measured(), t.Rate15m.measured(), t.Rate1h.measured(), t.Rate1d.measured()}
}

func (t *tally) errorSpans() spans {
	return spans{t.Rate1m.relativeError(), t.Rate5m.relativeError(), t.Rate15m.relativeError(), t.Rate1h.relativeError(), t.Rate1d.relativeError()}
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

// sorts returns the values of a parameter sort: the default, and every way to order with and without "-" before it.
func sorts(otherwise string, more ...string) []string {
	all := []string{}
	for _, by := range slices.Concat(slices.Collect(maps.Keys(ranks)), more) {
		all = append(all, by, "-"+by)
	}
	slices.Sort(all)
	return append([]string{otherwise}, all...)
}

// rejectRatio is the part of all shares that was stale or rejected, by number.
func (t *tally) rejectRatio() float64 {
	refused := t.Stale.Shares + t.Rejected.Shares
	if refused == 0 {
		return 0
	}
	return float64(refused) / float64(refused+t.Accepted.Shares)
}

// states are the values of the parameter state: what a worker must be doing.
var states = map[string]func(state) bool{
	"active":  func(s state) bool { return s&isActive != 0 },
	"online":  func(s state) bool { return s&isOnline != 0 && s&isWaiting == 0 },
	"waiting": func(s state) bool { return s&isOnline != 0 && s&isWaiting != 0 },
	"silent":  func(s state) bool { return s&isSilent != 0 },
	"all":     func(state) bool { return true },
}

func (s *Service) getWorkers(_ *http.Request, q *httpapi.Query) (any, error) {
	var (
		now    = s.moment()
		sort   = q.Choice("sort", sorts("-hashrate_5m", "name")...)
		fits   = states[q.Choice("state", "active", "online", "waiting", "silent", "all")]
		online = q.Choice("online", "", "true", "false")
		user   = q.Text("user", "", maxNameBytes)
		some   = q.Has("group")
		group  = q.Text("group", "", maxNameBytes)
		search = line(q.Text("q", "", maxNameBytes))
		first  = q.Choice("first", "", "silent")
		limit  = q.Integer("limit", 100, 1, 1000)
		offset = q.Integer("offset", 0, 0, maxOffset)
	)
	if err := q.Done(); err != nil {
		return nil, err
	}
	id, all := s.board.idOf(user), user == ""
	keep := func(l *listed, b brief) bool {
		return (all || b.user == id) && (!some || s.groupOf(l.name) == group) && fits(b.state) && (online == "" || (online == "true") == (b.state&isOnline != 0))
	}
	order := s.workers(now, sort)
	var page []*listed
	var total int
	if first == "" {
		page, total = order.page(keep, search, limit, offset)
	} else {
		silent := func(b brief) bool { return b.state&isSilent != 0 }
		page, total = order.page(func(l *listed, b brief) bool { return silent(b) && keep(l, b) }, search, limit, offset)
		rest, others := order.page(func(l *listed, b brief) bool { return !silent(b) && keep(l, b) }, search, limit-len(page), max(offset-total, 0))
		page, total = append(page, rest...), total+others
	}
	a := workersAnswer{
		Time: now, Starting: !s.replayed.Load(),
		Total: total, Limit: limit, Offset: offset, Workers: []workerAnswer{},
	}
	for _, v := range s.board.views(now, page) {
		a.Workers = append(a.Workers, s.answerOfWorker(v))
	}
	return a, nil
}

func (s *Service) answerOfWorker(v *workerView) workerAnswer {
	a := workerAnswer{
		User: v.UserName, UserID: v.UserID,
		Worker: v.Name, Group: s.groupOf(v.Name), WorkerID: strconv.FormatInt(v.WorkerID, 10),
		Agent: v.Agent, Online: v.Online, Waiting: v.Waits, Sessions: v.Sessions, ConnectedSince: timeOf(v.Since),
		Address:    s.cfg.Addresses.show(v.IP),
		pastAnswer: answerOfPast(v.past), Hashrate: v.spans(), Shares: v.shares(),
	}
	if v.Through != (farmLink{}) {
		a.Through = &linkAnswer{s.cfg.Addresses.show(v.Through.Proxy), fmt.Sprintf("%08x", v.Through.Session)}
	}
	if v.Server != 0 {
		a.Server = new(int(v.Server))
	}
	if v.Difficulty != nil {
		a.Difficulty = new(v.Difficulty.Float())
	}
	return a
}

// timeOf is that unix time, nil for 0.
func timeOf(unix int64) *time.Time {
	if unix == 0 {
		return nil
	}
	return new(time.Unix(unix, 0).UTC())
}

func answerOfPast(p past) pastAnswer {
	return pastAnswer{timeOf(p.First), timeOf(p.Last), answerOfBest(p.Best), answerOfBest(p.RoundBest)}
}

func answerOfBest(r record) *bestAnswer {
	if r.Bits == 0 {
		return nil
	}
	return &bestAnswer{r.difficulty(), time.Unix(r.At, 0).UTC()}
}

func (s *Service) getUsers(_ *http.Request, q *httpapi.Query) (any, error) {
	var (
		now    = s.moment()
		sort   = q.Choice("sort", sorts("-hashrate_5m", "name", byWorkers)...)
		fits   = states[q.Choice("state", "active", "online", "silent", "all")]
		search = line(q.Text("q", "", maxNameBytes))
		limit  = q.Integer("limit", 100, 1, 1000)
		offset = q.Integer("offset", 0, 0, maxOffset)
	)
	if err := q.Done(); err != nil {
		return nil, err
	}
	views, total := s.userPage(now, sort, func(_ *listedUser, b brief) bool { return fits(b.state) }, search, limit, offset)
	a := usersAnswer{
		Time: now, Starting: !s.replayed.Load(),
		Total: total, Limit: limit, Offset: offset, Users: []userAnswer{},
	}
	for _, v := range views {
		a.Users = append(a.Users, answerOfUser(v))
	}
	return a, nil
}

func answerOfUser(v *userView) userAnswer {
	return userAnswer{
		User: v.Name, UserID: v.ID, Workers: v.Workers, WorkersOnline: v.Online, WorkersSilent: v.Silent,
		pastAnswer: answerOfPast(v.past), Hashrate: v.spans(), Shares: v.shares(),
	}
}

func (s *Service) getUser(r *http.Request, q *httpapi.Query) (any, error) {
	if err := q.Done(); err != nil {
		return nil, err
	}
	return s.oneUser(r.PathValue("user"))
}

func (s *Service) oneUser(name string) (any, error) {
	now := s.moment()
	v := s.findUser(now, name)
	if v == nil {
		return nil, errNoSuchUser
	}
	return oneUserAnswer{now, !s.replayed.Load(), answerOfUser(v), v.errorSpans()}, nil
}

func (s *Service) getServers(_ *http.Request, q *httpapi.Query) (any, error) {
	if err := q.Done(); err != nil {
		return nil, err
	}
	now := s.moment()
	a := serversAnswer{Time: now, Servers: []serverAnswer{}}
	for _, v := range s.board.serverViews(now) {
		a.Servers = append(a.Servers, serverAnswer{
			Server: int(v.id), ServingSince: timeOf(v.serving), EndedAt: timeOf(v.gone), LastShareAt: timeOf(v.last),
			Workers: v.workers, Hashrate: v.spans(), Shares: v.shares(),
		})
	}
	return a, nil
}

func (s *Service) getWorker(r *http.Request, q *httpapi.Query) (any, error) {
	if err := q.Done(); err != nil {
		return nil, err
	}
	return s.oneWorker(r.PathValue("user"), r.PathValue("worker"))
}

func (s *Service) oneWorker(user, worker string) (any, error) {
	now := s.moment()
	v := s.board.find(now, user, worker)
	if v == nil {
		return nil, errNoSuchWorker
	}
	return oneWorkerAnswer{now, !s.replayed.Load(), s.answerOfWorker(v), v.errorSpans()}, nil
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
		a.Blocks = append(a.Blocks, s.answerOfBlock(b))
	}
	return a, nil
}

func (s *Service) answerOfBlock(b store.Block) blockAnswer {
	a := blockAnswer{
		Height: b.Height, Hash: b.Hash, State: string(b.State), Confirmations: b.Confirmations,
		Finder: b.WorkerName, RewardSat: b.RewardSat, SubPool: b.SubPool, Time: b.CreatedAt.UTC(),
	}
	if target, err := bitcoin.TargetFromBits(b.Bits); err == nil {
		a.Difficulty = new(target.Difficulty())
	}
	if l := s.ledger.Load(); l != nil && a.Difficulty != nil && b.State != store.Rejected {
		if hashes, ok := s.roundWork(l, b.CreatedAt); ok {
			a.Effort = new(hashes / (*a.Difficulty * hashesPerDifficulty))
		}
	}
	return a
}
