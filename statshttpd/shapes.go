package statshttpd

import (
	"context"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/httpapi"
	"btcpool/internal/store"
)

// Shape is another pool's API, whose paths and answers existing tools read: one of the constants.
type Shape string

// Each has a file of its own. What they hold is described in shapes.yaml.
const (
	PublicPool Shape = "public-pool"
	Ckpool     Shape = "ckpool"
	Miningcore Shape = "miningcore"
	NOMP       Shape = "nomp"
)

// Shapes returns all shapes.
func Shapes() []Shape { return []Shape{PublicPool, Ckpool, Miningcore, NOMP} }

const (
	mostListed = 1000 // workers, users or blocks in one answer: all are in the sums
	weekDays   = 7    // that a rate of a week is of, and today

	// What is mined, as these APIs name it.
	coinName, coinSymbol, coinAlgorithm = "Bitcoin", "BTC", "sha256"
	satPerCoin                          = 100_000_000
)

var errStarting = httpapi.Errorf(http.StatusServiceUnavailable, "starting", "the last hour of shares is being read still, try again later")

// shapes are the paths of other pools' APIs that are to be answered. Parameters that they do not know are passed over, as
// there.
func (s *Service) shapes() (all []endpoint) {
	of := map[Shape][]endpoint{
		PublicPool: s.publicPool(), Ckpool: s.ckpool(), Miningcore: s.miningcore(), NOMP: s.nomp(),
	}
	for _, shape := range Shapes() {
		if !slices.Contains(s.cfg.Shapes, shape) {
			continue
		}
		for _, e := range of[shape] {
			answer := e.answer
			e.answer = func(r *http.Request, q *httpapi.Query) (any, error) {
				if !s.replayed.Load() {
					return nil, errStarting
				}
				return answer(r, q)
			}
			all = append(all, e)
		}
	}
	return all
}

// orZero is the rate in H/s, 0 while it is not known: these APIs have no other word for that.
func (r rate) orZero() float64 {
	if !r.Known {
		return 0
	}
	return r.HashesPerSecond
}

// perSecond are the shares of a rate, which is of that many seconds.
func (r rate) perSecond(of span) float64 { return float64(r.Shares) / float64(of) }

// workersOf returns workers of a user, those with the most work first, and how many keep keeps.
func (s *Service) workersOf(now time.Time, userID int32, keep func(state) bool) (views []*workerView, total int) {
	return s.workerPage(now, "-hashrate_15m", func(_ *listed, b brief) bool { return b.user == userID && keep(b.state) }, "", mostListed, 0)
}

func isThere(st state) bool { return st&isOnline != 0 }

// named is what a worker is called, its id where its name is not known.
func (v *workerView) named() string {
	if v.Name == "" {
		return strconv.FormatInt(v.WorkerID, 10)
	}
	return v.Name
}

// called is the name of a user, its id where it is not known.
func (v *userView) called() string {
	if v.Name == "" {
		return strconv.Itoa(int(v.ID))
	}
	return v.Name
}

// takenBlocks returns the newest blocks that some node took.
func (s *Service) takenBlocks(ctx context.Context, limit, offset int) ([]store.Block, error) {
	db := s.db.Load()
	if db == nil {
		return nil, errUnavailable
	}
	return db.RoundBlocks(ctx, limit, offset)
}

// takenCounts are the numbers of such blocks: open, confirmed and orphaned.
func (s *Service) takenCounts() (open, confirmed, orphaned int64, err error) {
	l := s.ledger.Load()
	if l == nil {
		return 0, 0, 0, errUnavailable
	}
	return l.Counts[store.Submitted] + l.Counts[store.Accepted], l.Counts[store.Confirmed], l.Counts[store.Orphaned], nil
}

// blockDifficulty is that of the chain at the block.
func blockDifficulty(b store.Block) float64 {
	target, err := bitcoin.TargetFromBits(b.Bits)
	if err != nil {
		return 0
	}
	return target.Difficulty()
}

// tableMean is the rate of the last n whole hours or days, and of the one that runs, from the tables; of one whose first
// share is younger, since then.
func (s *Service) tableMean(ctx context.Context, of store.StatsKey, by step, n int, first int64) (float64, error) {
	db := s.statistics()
	if db == nil {
		return 0, errUnavailable
	}
	now := s.now().UTC()
	start := now.Truncate(by.long).Add(-time.Duration(n) * by.long)
	rows, err := db.ReadStats(ctx, by.kind, of.UserID, of.WorkerID, by.kind.Period(start), by.kind.Period(now))
	if err != nil {
		return 0, err
	}
	var hashes float64
	for _, row := range rows {
		hashes += row.Accept.Float()
	}
	return hashes / covered(now, start, first), nil
}

// covered are the seconds from start, or from the unix time first where that is later, to now, at least one.
func covered(now, start time.Time, first int64) float64 {
	return max(now.Sub(start).Seconds()-max(float64(first-start.Unix()), 0), 1)
}

// tenMinutes is the work of the last day of whoever a key names, in parts of ten minutes that are over, those that are
// known.
func (s *Service) tenMinutes(ctx context.Context, of store.StatsKey) (starts []time.Time, rates []float64, err error) {
	const part = 10 * time.Minute
	p := newParts(steps["minute"], s.now().UTC(), minutesAsked)
	if err := s.fromMinutes(ctx, p, of); err != nil {
		return nil, nil, err
	}
	for at := p.start.Truncate(part).Add(part); !at.Add(part).After(p.time(len(p.accepted))); at = at.Add(part) {
		var hashes float64
		known := 0
		for _, h := range slices.Clip(p.accepted[p.at(at):][:int(part/p.long)]) {
			if !math.IsNaN(h) {
				hashes += h
				known++
			}
		}
		if known > 0 {
			starts = append(starts, at)
			rates = append(rates, hashes/(float64(known)*p.long.Seconds()))
		}
	}
	return starts, rates, nil
}
