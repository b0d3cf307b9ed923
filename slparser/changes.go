package slparser

import (
	"cmp"
	"slices"

	"btcpool/internal/bitcoin"
	"btcpool/internal/sharefile"
	"btcpool/internal/store"
)

// changes are the entries of a day that differ from the database. Their rows are made a part at a time: all of a large
// pool's would not fit into memory.
type changes struct {
	stats    *dayStats
	left     []*entry
	last     part         // its memory is the next one's
	pool     bitcoin.Work // accepted that day, as far as rows were made
	logBytes int64        // how much of the day's file the rows are made of at least; 0: a part
}

// takeChanges returns what differs from the database: the pool, users, then workers by their keys, as indexes are
// written the fastest.
func (d *dayStats) takeChanges() *changes {
	c := &changes{stats: d, pool: d.pool.day().accept}
	d.entries(func(e *entry) {
		if e.changed != 0 {
			c.left = append(c.left, e)
		}
	})
	slices.SortFunc(c.left, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.table(), b.table()), cmp.Compare(a.user, b.user), cmp.Compare(a.worker, b.worker))
	})
	return c
}

// table tells the pool's, users' and workers' apart.
func (k key) table() int {
	switch {
	case k.worker != 0:
		return 2
	case k.user != 0:
		return 1
	}
	return 0
}

// part is some rows, and what they were made of.
type part struct {
	days, hours []store.Stats
	of          []taken
}

type taken struct {
	entry *entry
	hours uint32
}

// take makes the next rows, rowsAtOnce or a few more, as things are now, taking it for granted that they will be written.
// They are valid until the next call.
func (c *changes) take() part {
	p := part{c.last.days[:0], c.last.hours[:0], c.last.of[:0]}
	for len(c.left) > 0 && len(p.days)+len(p.hours) < rowsAtOnce {
		e := c.left[0]
		c.left = c.left[1:]
		p.of = append(p.of, taken{e, e.changed})
		for h, t := range e.hours {
			if e.changed&(1<<h) != 0 {
				p.hours = append(p.hours, t.row(e.key, hourOf(c.stats.day, h)))
			}
		}
		day := e.day()
		p.days = append(p.days, day.row(e.key, int(c.stats.day)))
		if e.key == (key{}) {
			c.pool = day.accept
		}
		e.changed = 0
	}
	c.last = p
	return p
}

// giveBack has rows that were not written made again with the next changes.
func (p *part) giveBack() {
	for _, t := range p.of {
		t.entry.changed |= t.hours
	}
}

// hourOf is the period of a day's hour.
func hourOf(day sharefile.Day, hour int) int { return int(day)*100 + hour }
