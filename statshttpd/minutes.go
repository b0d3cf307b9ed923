package statshttpd

import (
	"context"
	"slices"
	"time"

	"btcpool/internal/store"
)

// Minutes are kept for a day in stats_minutes: of the pool, of each user and of each worker a row an hour, written when
// the hour is over. What is younger is in the rings. Since a row is cut from whole minutes of memory, and a start counts
// all of an hour that has no row yet, nothing is counted twice; the pool's row, written last, says that an hour has all.
const (
	minutesKept  = 25 * time.Hour
	cutAfter     = 2 * time.Minute // late shares come in; the rings hold the hour for a minute more
	maxCutHours  = 3               // that wait for the database
	cutInterval  = 10 * time.Second
	minutesAsked = 24 * 60
	sumTimeout   = time.Minute // for a day's hours of all workers: millions of rows
)

// slice is what a window has of the minutes from unix time from on, n of them, in hashes.
func (w *window) slice(from int64, n int) (accepted, stale, rejected []float64) {
	accepted, stale, rejected = make([]float64, n), make([]float64, n), make([]float64, n)
	first := from / coarseWidth
	if w.coarse.size() > 0 {
		for i := range accepted {
			accepted[i] = w.coarse.at(first + int64(i)).Work.Float()
		}
	}
	for _, r := range w.refused {
		i := r.minute - first
		switch {
		case i < 0 || i >= int64(n):
		case r.status.IsStale():
			stale[i] += r.work
		default:
			rejected[i] += r.work
		}
	}
	return accepted, stale, rejected
}

// minutes returns the row of one hour, ok false when there is nothing in it.
func (w *window) minutes(k store.StatsKey, start time.Time, from int) (m store.Minutes, ok bool) {
	if w.last < start.Unix() {
		return m, false
	}
	k.Period = store.Hour.Period(start)
	m = store.Minutes{StatsKey: k, From: from, To: store.MinutesPerHour}
	accepted, stale, rejected := w.slice(start.Unix(), store.MinutesPerHour)
	for i := from; i < store.MinutesPerHour; i++ {
		m.Accept[i], m.Stale[i], m.Reject[i] = accepted[i], stale[i], rejected[i]
		ok = ok || accepted[i]+stale[i]+rejected[i] > 0
	}
	return m, ok
}

// packed is a row as it waits for the database: it is a tenth as large.
type packed struct {
	store.StatsKey
	bytes []byte
}

// cutHour makes the rows of the hour that began at start, the pool's last, of the minutes that were counted from unix
// time since on.
func (b *board) cutHour(start time.Time, since int64) (rows []packed) {
	from := int(max(0, min((since-start.Unix()+coarseWidth-1)/coarseWidth, store.MinutesPerHour)))
	add := func(w *window, k store.StatsKey) {
		if m, ok := w.minutes(k, start, from); ok {
			rows = append(rows, packed{m.StatsKey, m.AppendTo(nil)})
		}
	}
	b.mu.RLock()
	keys := make([]workerKey, 0, len(b.workers))
	for k := range b.workers {
		keys = append(keys, k)
	}
	b.mu.RUnlock()
	for chunk := range slices.Chunk(keys, orderChunk) { // shares are not kept waiting
		b.mu.RLock()
		for _, k := range chunk {
			if w := b.workers[k]; w != nil {
				add(&w.window, store.StatsKey{UserID: k.UserID, WorkerID: k.WorkerID})
			}
		}
		b.mu.RUnlock()
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for id, u := range b.users {
		add(&u.window, store.StatsKey{UserID: id})
	}
	pool, _ := b.pool.minutes(store.StatsKey{}, start, from)
	pool.StatsKey, pool.From, pool.To = store.StatsKey{Period: store.Hour.Period(start)}, from, store.MinutesPerHour
	return append(rows, packed{pool.StatsKey, pool.AppendTo(nil)})
}

// hourCut is an hour whose rows are not written.
type hourCut struct {
	start time.Time
	rows  []packed
}

// cutDue cuts the hour that is over, once all of it is counted.
func (s *Service) cutDue(now time.Time) {
	start := now.Add(-cutAfter).Truncate(time.Hour).Add(-time.Hour)
	if !s.replayed.Load() || start.Equal(s.lastCut) {
		return
	}
	s.lastCut = start
	held := (now.Unix()/coarseWidth - int64(coarseBuckets) + 1) * coarseWidth
	since := max(s.countedSince.Load(), held)
	if since >= start.Add(time.Hour).Unix() {
		return
	}
	s.cuts = append(s.cuts, hourCut{start, s.board.cutHour(start, since)})
	if surplus := len(s.cuts) - maxCutHours; surplus > 0 {
		s.cuts = s.cuts[surplus:]
		s.metrics.minutesLost.Add(float64(surplus))
		s.log.Warn().Msg("minutes of an hour are given up: the database was away for too long")
	}
}

// writeMinutes writes what was cut.
func (s *Service) writeMinutes(ctx context.Context, db *store.Store) error {
	for len(s.cuts) > 0 {
		for rows := range slices.Chunk(s.cuts[0].rows, flushRows) {
			all := make([]store.Minutes, len(rows))
			for i, row := range rows {
				all[i].StatsKey = row.StatsKey
				if err := all[i].Parse(row.bytes); err != nil {
					return err
				}
			}
			if err := withTimeout(ctx, func(ctx context.Context) error { return db.WriteMinutes(ctx, all) }); err != nil {
				return err
			}
		}
		s.log.Debug().Time("hour", s.cuts[0].start).Int("rows", len(s.cuts[0].rows)).Msg("minutes written")
		s.cuts = s.cuts[1:]
	}
	return nil
}

// purgeMinutes deletes the rows of hours that nobody asks for any more.
func (s *Service) purgeMinutes(ctx context.Context, db *store.Store) {
	for n := purgeRows; n == purgeRows && ctx.Err() == nil; {
		err := withTimeout(ctx, func(ctx context.Context) (err error) {
			n, err = db.PurgeMinutes(ctx, s.now().Add(-minutesKept), purgeRows)
			return err
		})
		if err != nil {
			s.log.Warn().Err(err).Msg("rows of minutes not purged: will try again in an hour")
			return
		}
	}
}

// refreshHours reads the hours when it is time; what fails is tried again.
func (s *Service) refreshHours(ctx context.Context, db *store.Store) {
	err := s.readHours(ctx, db)
	if s.hours.Set(err); err != nil && ctx.Err() == nil {
		s.metrics.hoursFailed.Inc()
	}
}

// readHours reads the accepted work of the whole hours that the rate of a day needs, once slparser is done with them:
// it counts in order, and has something of the hour that runs.
func (s *Service) readHours(ctx context.Context, db *store.Store) error {
	now := s.now()
	end := now.Truncate(time.Hour)
	if s.board.dayEndIs(end.Unix()) || now.Sub(end) < cutAfter {
		return nil
	}
	running := store.Hour.Period(end)
	var begun []store.HourWork
	err := withTimeout(ctx, func(ctx context.Context) (err error) {
		begun, err = db.PoolHours(ctx, running, running)
		return err
	})
	if err != nil || len(begun) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sumTimeout)
	defer cancel()
	sums, err := db.SumHours(ctx, store.Hour.Period(end.Add(-dayHours*time.Hour)), store.Hour.Period(end.Add(-time.Hour)))
	if err != nil {
		return err
	}
	s.board.setHours(end.Unix(), sums)
	return nil
}

func (b *board) dayEndIs(t int64) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.dayEnd == t
}

// setHours takes in what the hours before end have of workers, users and the pool.
func (b *board) setHours(end int64, sums map[store.WorkerKey]float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dayEnd = end
	b.pool.hours = sums[store.WorkerKey{}]
	for id, u := range b.users {
		u.hours = sums[store.WorkerKey{UserID: id}]
	}
	for k, w := range b.workers {
		w.hours = sums[store.WorkerKey(k)]
	}
}
