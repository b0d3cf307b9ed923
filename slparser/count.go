package slparser

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"btcpool/internal/sealed"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

// counter counts the records of a day on all cores: members are inflated and records read side by side, and each worker
// belongs to one lane, which adds its shares in the order of the file.
type counter struct {
	rules rules
	lanes []lane
	parse chan *batch
	free  chan *batch // bounds how much is in memory
	wait  sync.WaitGroup
}

// lane is a part of all workers.
type lane struct {
	stats *dayStats
	queue chan *batch
}

// batch travels from whoever reads the file to a parser, and to all lanes.
type batch struct {
	records []byte
	tally   tally
	credits [][]credit    // by lane
	parsed  chan struct{} // a token for each lane
	lanes   atomic.Int32  // that are not done with it
}

func newCounter(day sharefile.Day, rules rules, lanes int) *counter {
	most := 3 * lanes
	c := &counter{rules: rules, lanes: make([]lane, lanes), parse: make(chan *batch, most), free: make(chan *batch, most)}
	for range most {
		c.free <- &batch{credits: make([][]credit, lanes), parsed: make(chan struct{}, lanes)}
	}
	for i := range c.lanes {
		c.lanes[i] = lane{newDayStats(day, rules), make(chan *batch, most)}
		c.wait.Go(c.parseAll)
		c.wait.Go(func() { c.add(i) })
	}
	return c
}

// take has records counted, which stay the caller's.
func (c *counter) take(records []byte) {
	b := <-c.free
	b.records = append(b.records[:0], records...)
	c.parse <- b
	c.queue(b)
}

// takeStreaks has streaks counted, which stay the caller's.
func (c *counter) takeStreaks(streaks []sealed.Streak) {
	b := <-c.free
	c.credit(b, func(use func(s *share.Share, n int64) bool) { b.tally.readStreaks(streaks, use) })
	c.queue(b)
}

func (c *counter) queue(b *batch) {
	b.lanes.Store(int32(len(c.lanes)))
	for _, l := range c.lanes {
		l.queue <- b
	}
}

func (c *counter) parseAll() {
	for b := range c.parse {
		c.credit(b, func(use func(s *share.Share, n int64) bool) {
			b.tally.read(b.records, func(s *share.Share) bool { return use(s, 1) })
		})
	}
}

// credit has read make the credits of a batch, for its lanes to add.
func (c *counter) credit(b *batch, read func(use func(s *share.Share, n int64) bool)) {
	for i := range b.credits {
		b.credits[i] = b.credits[i][:0]
	}
	read(func(s *share.Share, n int64) bool {
		credit, ok := c.rules.creditOf(s)
		if ok {
			credit.shares = uint64(n)
			i := credit.lane(len(b.credits))
			b.credits[i] = append(b.credits[i], credit)
		}
		return ok
	})
	for range c.lanes {
		b.parsed <- struct{}{}
	}
}

// lane spreads workers, whatever their ids are.
func (k key) lane(lanes int) int {
	mixed := (uint64(k.worker) ^ uint64(k.user)<<32) * 0x9e3779b97f4a7c15
	return int(mixed >> 33 % uint64(lanes))
}

func (c *counter) add(lane int) {
	l := c.lanes[lane]
	for b := range l.queue {
		<-b.parsed
		l.stats.addToWorkers(b.credits[lane])
		if b.lanes.Add(-1) == 0 {
			c.free <- b
		}
	}
}

// end returns what all records make.
func (c *counter) end() (*dayStats, tally) {
	close(c.parse)
	for _, l := range c.lanes {
		close(l.queue)
	}
	c.wait.Wait()
	var all tally
	for len(c.free) > 0 {
		t := (<-c.free).tally
		all.shares, all.malformed, all.invalid, all.others =
			all.shares+t.shares, all.malformed+t.malformed, all.invalid+t.invalid, all.others+t.others
	}
	stats := newDayStats(c.lanes[0].stats.day, c.rules)
	for _, l := range c.lanes {
		stats.merge(l.stats)
	}
	return stats, all
}

// count makes the statistics of a day's file.
func (s *Service) count(ctx context.Context, day sharefile.Day, got func(bytes, of int64)) (*dayStats, tally, reading, error) {
	cores := runtime.GOMAXPROCS(0)
	c := newCounter(day, s.rules, cores)
	read, err := s.readWhole(ctx, day, cores+1, into{c.take, c.takeStreaks}, got)
	stats, t := c.end()
	s.metrics.add(t)
	return stats, t, read, err
}
