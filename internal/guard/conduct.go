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

// Conduct is how a connection behaves: what its limits count. The zero value is
// that of a new one. It is a plain value, which the connection's owner keeps.
type Conduct struct {
	Shares, Invalid int     // since the last look
	Credit          float64 // lines it may send at once
	At              time.Time
}

// Judged counts a share and reports whether there are too many invalid ones
// among the last.
func (c *Conduct) Judged(status share.Status, l Limits) (bad bool) {
	if l.InvalidShares == 0 || l.InvalidAmong == 0 {
		return false
	}
	c.Shares++
	if status.IsMinersFault() {
		c.Invalid++
	}
	if c.Shares < l.InvalidAmong {
		return false
	}
	bad = float64(c.Invalid) > l.InvalidShares*float64(c.Shares)
	c.Shares, c.Invalid = 0, 0
	return bad
}

// Spent takes n lines off the credit of a connection, which grows by rate per
// second, and returns how long it must pause for it.
func (c *Conduct) Spent(n, rate int, now time.Time) time.Duration {
	if c.At.IsZero() {
		c.Credit = lineBurst * float64(rate)
	} else {
		c.Credit = min(c.Credit+now.Sub(c.At).Seconds()*float64(rate), lineBurst*float64(rate))
	}
	c.At = now
	if c.Credit -= float64(n); c.Credit >= 0 {
		return 0
	}
	c.Credit = max(c.Credit, -float64(rate))
	return min(time.Duration(-c.Credit/float64(rate)*float64(time.Second)), maxPause)
}
