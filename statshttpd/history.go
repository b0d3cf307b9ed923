package statshttpd

import (
	"context"
	"maps"
	"math"
	"net/http"
	"slices"
	"time"

	"btcpool/internal/httpapi"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

type (
	historyAnswer struct {
		Time        time.Time  `json:"time"`
		Step        string     `json:"step"`
		StepSeconds int        `json:"step_seconds"`
		Start       time.Time  `json:"start"`
		Hashrate    []*float64 `json:"hashrate"`
		Accepted    []*float64 `json:"accepted"`
		Stale       []*float64 `json:"stale"`
		Rejected    []*float64 `json:"rejected"`
		Earned      []*float64 `json:"earned"`
	}
	rejectsAnswer struct {
		Time        time.Time        `json:"time"`
		Step        string           `json:"step"`
		StepSeconds int              `json:"step_seconds"`
		Start       time.Time        `json:"start"`
		Accepted    []*float64       `json:"accepted"`
		Stale       []*float64       `json:"stale"`
		Rejected    []*float64       `json:"rejected"`
		Reasons     []reasonsByTimes `json:"reasons"`
	}
	reasonsByTimes struct {
		Status     int32     `json:"status"`
		Reason     string    `json:"reason"`
		Difficulty []float64 `json:"difficulty"`
	}
)

// step is the length of a history's parts.
type step struct {
	name string
	long time.Duration
	most int             // parts
	kind store.StatsKind // empty for minutes
}

var steps = map[string]step{
	"minute": {"minute", time.Minute, minutesAsked, ""},
	"hour":   {"hour", time.Hour, 31 * 24, store.Hour},
	"day":    {"day", 24 * time.Hour, 366, store.Day},
}

const mostParts = minutesAsked // of any step

// who returns whose history a path asks for: the pool's, a user's or a worker's.
type who func(r *http.Request) (store.StatsKey, error)

func (s *Service) thePool(*http.Request) (store.StatsKey, error) { return store.StatsKey{}, nil }

func (s *Service) theUser(r *http.Request) (store.StatsKey, error) {
	id := s.board.idOf(r.PathValue("user"))
	if id < 0 {
		return store.StatsKey{}, errNoSuchUser
	}
	return store.StatsKey{UserID: id}, nil
}

func (s *Service) theWorker(r *http.Request) (store.StatsKey, error) {
	v := s.board.find(s.now(), r.PathValue("user"), r.PathValue("worker"))
	if v == nil {
		return store.StatsKey{}, errNoSuchWorker
	}
	return store.StatsKey{UserID: v.UserID, WorkerID: v.WorkerID}, nil
}

// parts is a history being made: the work of each step from start on, NaN where it is not known.
type parts struct {
	step
	start                             time.Time
	accepted, stale, rejected, earned []float64
	reasons                           map[share.Status][]float64
}

func newParts(of step, now time.Time, n int) *parts {
	n = min(n, of.most)
	p := &parts{step: of, start: now.Truncate(of.long).Add(-time.Duration(n-1) * of.long), reasons: make(map[share.Status][]float64)}
	if of.kind == "" { // the running minute is not told
		p.start = p.start.Add(-of.long)
	}
	for _, series := range []*[]float64{&p.accepted, &p.stale, &p.rejected, &p.earned} {
		*series = slices.Repeat([]float64{math.NaN()}, n)
	}
	return p
}

// at returns the place of time t, which may lie outside.
func (p *parts) at(t time.Time) int {
	return int(math.Floor(float64(t.Sub(p.start)) / float64(p.long)))
}

func (p *parts) time(i int) time.Time { return p.start.Add(time.Duration(i) * p.long) }

// fromTables takes in the rows of hours or days. A part without a row had no share, unless it is from before the pool's
// first one.
func (s *Service) fromTables(ctx context.Context, p *parts, of store.StatsKey) error {
	db := s.statistics()
	if db == nil {
		return errUnavailable
	}
	n := len(p.accepted)
	from, to := p.kind.Period(p.start), p.kind.Period(p.time(n-1))
	rows, err := db.ReadStats(ctx, p.kind, of.UserID, of.WorkerID, from, to)
	if err != nil {
		return err
	}
	pool := rows
	if of.UserID != 0 {
		if pool, err = db.ReadStats(ctx, p.kind, 0, 0, from, to); err != nil {
			return err
		}
	}
	if len(pool) == 0 {
		return nil
	}
	places := make(map[int]int, n) // by period
	for i := range n {
		period := p.kind.Period(p.time(i))
		places[period] = i
		if period >= pool[0].Period && period <= pool[len(pool)-1].Period {
			p.accepted[i], p.stale[i], p.rejected[i], p.earned[i] = 0, 0, 0, 0
		}
	}
	for _, row := range rows {
		i, ok := places[row.Period]
		if !ok {
			continue
		}
		p.accepted[i], p.stale[i], p.rejected[i] = row.Accept.Float(), row.Stale.Float(), row.Reject.Float()
		p.earned[i], _ = row.EarnSat.Float64()
		for status, w := range row.RejectDetail {
			if p.reasons[status] == nil {
				p.reasons[status] = make([]float64, n)
			}
			p.reasons[status][i] = w.Float()
		}
	}
	return nil
}

// fromMinutes takes in the rows of minutes, and from memory what no row has.
func (s *Service) fromMinutes(ctx context.Context, p *parts, of store.StatsKey) error {
	n := len(p.accepted)
	if db := s.statistics(); db != nil {
		from, to := store.Hour.Period(p.start), store.Hour.Period(p.time(n-1))
		pool, err := db.ReadMinutes(ctx, 0, 0, from, to) // tells which minutes are known; it is written last, and so read first
		if err != nil {
			return err
		}
		rows := pool
		if of.UserID != 0 {
			if rows, err = db.ReadMinutes(ctx, of.UserID, of.WorkerID, from, to); err != nil {
				return err
			}
		}
		for _, m := range pool {
			p.put(m.Period, m.From, m.To, func(i, _ int) { p.accepted[i], p.stale[i], p.rejected[i] = 0, 0, 0 })
		}
		for _, m := range rows {
			p.put(m.Period, m.From, m.To, func(i, minute int) {
				p.accepted[i], p.stale[i], p.rejected[i] = m.Accept[minute], m.Stale[minute], m.Reject[minute]
			})
		}
	}
	now := s.now()
	held := coarseBuckets - 1 // whole minutes
	from := now.Truncate(time.Minute).Add(-time.Duration(held) * time.Minute)
	counted := time.Unix(s.countedSince.Load(), 0)
	if !s.replayed.Load() {
		counted = now // figures grow still
	}
	accepted, stale, rejected := s.board.slice(of, from.Unix(), held)
	for minute := range held {
		at := from.Add(time.Duration(minute) * time.Minute)
		if i := p.at(at); i >= 0 && i < n && math.IsNaN(p.accepted[i]) && !at.Before(counted) {
			p.accepted[i], p.stale[i], p.rejected[i] = accepted[minute], stale[minute], rejected[minute]
		}
	}
	return nil
}

// put calls set with the place of each minute from..to-1 of an hour, and the minute.
func (p *parts) put(hour, from, to int, set func(i, minute int)) {
	start, ok := store.Hour.Start(hour)
	if !ok {
		return
	}
	for minute := from; minute < to; minute++ {
		if i := p.at(start.Add(time.Duration(minute) * time.Minute)); i >= 0 && i < len(p.accepted) {
			set(i, minute)
		}
	}
}

// slice returns the minutes in memory of whoever k names, zeros when nobody knows him.
func (b *board) slice(k store.StatsKey, from int64, n int) (accepted, stale, rejected []float64) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	w := &window{}
	switch {
	case k.UserID == 0:
		w = &b.pool
	case k.WorkerID == 0:
		if u := b.users[k.UserID]; u != nil {
			w = &u.window
		}
	default:
		if known := b.workers[workerKey{k.UserID, k.WorkerID}]; known != nil {
			w = &known.window
		}
	}
	return w.slice(from, n)
}

// asked returns the history that a request asks for.
func (s *Service) asked(r *http.Request, q *httpapi.Query, of who, choices ...string) (*parts, error) {
	by := steps[q.Choice("step", choices...)]
	limit := q.Integer("limit", by.most, 1, mostParts)
	if err := q.Done(); err != nil {
		return nil, err
	}
	key, err := of(r)
	if err != nil {
		return nil, err
	}
	p := newParts(by, s.now().UTC(), limit)
	if by.kind == "" {
		return p, s.fromMinutes(r.Context(), p, key)
	}
	return p, s.fromTables(r.Context(), p, key)
}

func (s *Service) history(of who) func(*http.Request, *httpapi.Query) (any, error) {
	return func(r *http.Request, q *httpapi.Query) (any, error) {
		p, err := s.asked(r, q, of, "minute", "hour", "day")
		if err != nil {
			return nil, err
		}
		a := historyAnswer{
			Time: s.moment(), Step: p.name, StepSeconds: int(p.long.Seconds()), Start: p.start, Hashrate: make([]*float64, len(p.accepted)),
			Accepted: difficultiesOf(p.accepted), Stale: difficultiesOf(p.stale), Rejected: difficultiesOf(p.rejected), Earned: known(p.earned, 1),
		}
		for i, hashes := range p.accepted {
			if covered := min(p.long, s.now().Sub(p.time(i))).Seconds(); covered >= 1 && !math.IsNaN(hashes) {
				a.Hashrate[i] = new(roundRate(hashes / covered))
			}
		}
		return a, nil
	}
}

func (s *Service) rejects(of who) func(*http.Request, *httpapi.Query) (any, error) {
	return func(r *http.Request, q *httpapi.Query) (any, error) {
		p, err := s.asked(r, q, of, "hour", "day")
		if err != nil {
			return nil, err
		}
		a := rejectsAnswer{
			Time: s.moment(), Step: p.name, StepSeconds: int(p.long.Seconds()), Start: p.start,
			Accepted: difficultiesOf(p.accepted), Stale: difficultiesOf(p.stale), Rejected: difficultiesOf(p.rejected), Reasons: []reasonsByTimes{},
		}
		for _, status := range slices.Sorted(maps.Keys(p.reasons)) {
			of := p.reasons[status]
			for i := range of {
				of[i] /= hashesPerDifficulty
			}
			a.Reasons = append(a.Reasons, reasonsByTimes{int32(status), status.Text(), of})
		}
		return a, nil
	}
}

// roundRate keeps six digits of a hashrate: no more of it is true, and thousands of them travel.
func roundRate(rate float64) float64 {
	if rate < 1 {
		return 0
	}
	unit := math.Pow10(int(math.Log10(rate)) - 5)
	return math.Round(rate/unit) * unit
}

func difficultiesOf(hashes []float64) []*float64 { return known(hashes, hashesPerDifficulty) }

// known returns values in units, nil for those that are not known.
func known(values []float64, unit float64) []*float64 {
	all := make([]*float64, len(values))
	for i, v := range values {
		if !math.IsNaN(v) {
			all[i] = new(v / unit)
		}
	}
	return all
}
