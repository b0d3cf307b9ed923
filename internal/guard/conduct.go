package guard

import (
	"time"

	"btcpool/internal/share"
)

const (
	// lineBurst is how many seconds' worth of lines may come at once.
	lineBurst = 10
	// maxPause keeps a connection that is held up near to the rest of the world.
	maxPause = time.Second
)

// Conduct is what is known of the shares of one worker, or of one miner behind a farm proxy. The zero value is that of
// a new one. It is a plain value, which belongs to whoever keeps it.
type Conduct struct {
	Shares, Invalid int  // how many came since the last look
	Proven          bool // a share of it was accepted
	Doubtful        bool // a share of it was invalid
	BarredUntil     time.Time
}

// Judged counts a share and reports whether there are too many invalid ones among the last.
func (c *Conduct) Judged(status share.Status, l Limits) (bad bool) {
	if l.InvalidShares == 0 || l.InvalidAmong == 0 {
		return false
	}
	c.Shares++
	switch {
	case status.IsAccepted():
		c.Proven = true
	case status.IsMinersFault():
		c.Doubtful = true
		c.Invalid++
	}
	if c.Shares < l.InvalidAmong {
		return false
	}
	bad = float64(c.Invalid) > l.InvalidShares*float64(c.Shares)
	c.Shares, c.Invalid = 0, 0
	return bad
}

// Bar has no shares taken until a time.
func (c *Conduct) Bar(until time.Time) { *c = Conduct{BarredUntil: until} }

// Good reports whether nothing speaks against whom c is of: it is not barred, and has had a share accepted, or none
// that was invalid.
func (c *Conduct) Good(now time.Time) bool {
	return !now.Before(c.BarredUntil) && (c.Proven || !c.Doubtful)
}

// Pace is how much a connection may say. The zero value is that of a new one. It is a plain value, which the
// connection's owner keeps.
type Pace struct {
	Credit float64 // lines it may send at once
	At     time.Time
}

// Spent takes n lines off the credit of a connection, which grows by rate per second, and returns how long it must
// pause for it.
func (p *Pace) Spent(n, rate int, now time.Time) time.Duration {
	if p.At.IsZero() {
		p.Credit = lineBurst * float64(rate)
	} else {
		p.Credit = min(p.Credit+now.Sub(p.At).Seconds()*float64(rate), lineBurst*float64(rate))
	}
	p.At = now
	if p.Credit -= float64(n); p.Credit >= 0 {
		return 0
	}
	p.Credit = max(p.Credit, -float64(rate))
	return min(time.Duration(-p.Credit/float64(rate)*float64(time.Second)), maxPause)
}
