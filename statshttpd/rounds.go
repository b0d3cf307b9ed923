package statshttpd

import (
	"context"
	"net/http"
	"slices"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/httpapi"
	"btcpool/internal/store"
)

// work is what the pool accepted by hour, as far as the tables go back. It is never changed.
type work struct {
	hours []store.HourWork
	sums  []float64 // up to and including each of hours
}

// A round is over when a block is found that some node took, be it orphaned later.
const lookBack = 100 // rounds that luck is told of, at most

type (
	roundsAnswer struct {
		Time   time.Time          `json:"time"`
		Total  int64              `json:"total"`
		Limit  int                `json:"limit"`
		Offset int                `json:"offset"`
		Luck   []luckAnswer       `json:"luck"`
		Rounds []pastRoundsAnswer `json:"rounds"`
	}
	luckAnswer struct {
		Rounds int      `json:"rounds"`
		Luck   *float64 `json:"luck"`
	}
	pastRoundsAnswer struct {
		Start      *time.Time `json:"start"`
		End        time.Time  `json:"end"`
		Height     int32      `json:"height"`
		Hash       string     `json:"hash"`
		State      string     `json:"state"`
		Finder     string     `json:"finder"`
		Difficulty *float64   `json:"difficulty"`
		Work       *float64   `json:"work"`
		Effort     *float64   `json:"effort"`
	}
	mergedBlocksAnswer struct {
		Time   time.Time           `json:"time"`
		Total  int64               `json:"total"`
		Limit  int                 `json:"limit"`
		Offset int                 `json:"offset"`
		Blocks []mergedBlockAnswer `json:"blocks"`
	}
	mergedBlockAnswer struct {
		Chain         string    `json:"chain"`
		Hash          string    `json:"hash"`
		ParentHash    string    `json:"parent_hash"`
		State         string    `json:"state"`
		Confirmations int64     `json:"confirmations"`
		Time          time.Time `json:"time"`
	}
)

// readWorkByHour reads the pool's hours, all of them at first and then those that may have changed.
func readWorkByHour(ctx context.Context, db *store.Store, old *work, now time.Time) (*work, error) {
	const mayChange = 49 * time.Hour // slparser counts today and yesterday
	from := 0
	next := &work{}
	if old != nil {
		from = store.Hour.Period(now.Add(-mayChange))
		i, _ := slices.BinarySearchFunc(old.hours, from, func(h store.HourWork, hour int) int { return h.Hour - hour })
		next.hours = slices.Clone(old.hours[:i])
	}
	young, err := db.PoolHours(ctx, from, store.Hour.Period(now))
	if err != nil {
		return nil, err
	}
	next.hours = append(next.hours, young...)
	var sum float64
	for _, h := range next.hours {
		sum += h.Hashes
		next.sums = append(next.sums, sum)
	}
	return next, nil
}

// upTo is the work before t; the hour that t falls into counts by its part.
func (w *work) upTo(t time.Time) float64 {
	hour := store.Hour.Period(t)
	i, found := slices.BinarySearchFunc(w.hours, hour, func(h store.HourWork, hour int) int { return h.Hour - hour })
	var sum float64
	if i > 0 {
		sum = w.sums[i-1]
	}
	if found {
		sum += w.hours[i].Hashes * t.Sub(t.Truncate(time.Hour)).Hours()
	}
	return sum
}

// between estimates the pool's accepted hashes between two times: of the last hour from memory, of older times from the
// tables up to this hour, which is not over there, and from memory since.
func (s *Service) between(w *work, from, to time.Time) float64 {
	now := s.now()
	live := now.Truncate(time.Hour)
	if held := now.Add(-time.Duration(hour) * time.Second); from.After(held) {
		live = from
	}
	if !to.After(live) {
		return w.upTo(to) - w.upTo(from)
	}
	var hashes float64
	if from.Before(live) {
		hashes = w.upTo(live) - w.upTo(from)
		from = live
	}
	hashes += s.board.workSince(now, from)
	if to.Before(now) {
		hashes -= s.board.workSince(now, to)
	}
	return hashes
}

// roundWork is the accepted work of the round that a block of that time ended; ok is false where it is not known.
func (s *Service) roundWork(l *ledger, found time.Time) (hashes float64, ok bool) {
	i, known := slices.BinarySearchFunc(l.Ends, found, time.Time.Compare)
	if !known || l.Work == nil || len(l.Work.hours) == 0 {
		return 0, false
	}
	first, ok := store.Hour.Start(l.Work.hours[0].Hour)
	if !ok {
		return 0, false
	}
	from := first // of the pool's work
	if i > 0 {
		from = l.Ends[i-1]
	}
	if from.Before(first) { // the tables begin within the round
		return 0, false
	}
	return s.between(l.Work, from, found), true
}

func (s *Service) getRounds(r *http.Request, q *httpapi.Query) (any, error) {
	limit := q.Integer("limit", 50, 1, 500)
	offset := q.Integer("offset", 0, 0, maxOffset)
	if err := q.Done(); err != nil {
		return nil, err
	}
	db, l := s.db.Load(), s.ledger.Load()
	if db == nil || l == nil {
		return nil, errUnavailable
	}
	a := roundsAnswer{Time: s.moment(), Total: int64(len(l.Ends)), Limit: limit, Offset: offset, Rounds: []pastRoundsAnswer{}}
	latest, err := db.RoundBlocks(r.Context(), lookBack, 0)
	if err != nil {
		return nil, err
	}
	for _, n := range []int{10, 30, lookBack} {
		a.Luck = append(a.Luck, luckAnswer{n, s.luck(l, latest[:min(n, len(latest))])})
	}
	blocks, err := db.RoundBlocks(r.Context(), limit, offset)
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		a.Rounds = append(a.Rounds, s.pastRound(l, b))
	}
	return a, nil
}

func (s *Service) pastRound(l *ledger, b store.Block) pastRoundsAnswer {
	of := s.answerOfBlock(b)
	a := pastRoundsAnswer{
		End: of.Time, Height: b.Height, Hash: b.Hash, State: of.State, Finder: of.Finder, Difficulty: of.Difficulty, Effort: of.Effort,
	}
	if i, known := slices.BinarySearchFunc(l.Ends, b.CreatedAt, time.Time.Compare); known && i > 0 {
		a.Start = new(l.Ends[i-1])
	}
	if hashes, ok := s.roundWork(l, b.CreatedAt); ok {
		a.Work = new(hashes / hashesPerDifficulty)
	}
	return a
}

// luck is the work that blocks take on average as a part of what these took: above 1 is lucky. Nil without any.
func (s *Service) luck(l *ledger, blocks []store.Block) *float64 {
	var wanted, took float64
	for _, b := range blocks {
		target, err := bitcoin.TargetFromBits(b.Bits)
		hashes, ok := s.roundWork(l, b.CreatedAt)
		if err == nil && ok {
			wanted += target.Difficulty() * hashesPerDifficulty
			took += hashes
		}
	}
	if took <= 0 {
		return nil
	}
	return new(wanted / took)
}

func (s *Service) getMergedBlocks(r *http.Request, q *httpapi.Query) (any, error) {
	limit := q.Integer("limit", 50, 1, 500)
	offset := q.Integer("offset", 0, 0, maxOffset)
	if err := q.Done(); err != nil {
		return nil, err
	}
	db := s.db.Load()
	if db == nil {
		return nil, errUnavailable
	}
	total, err := db.MergedBlockCount(r.Context())
	if err != nil {
		return nil, err
	}
	blocks, err := db.MergedBlocks(r.Context(), limit, offset)
	if err != nil {
		return nil, err
	}
	a := mergedBlocksAnswer{Time: s.moment(), Total: total, Limit: limit, Offset: offset, Blocks: []mergedBlockAnswer{}}
	for _, b := range blocks {
		a.Blocks = append(a.Blocks, mergedBlockAnswer{b.Chain, b.Hash, b.ParentHash, string(b.State), b.Confirmations, b.CreatedAt})
	}
	return a, nil
}
