package job

import "time"

// Pulse tells messages that are old from those that only look so because a clock is wrong: what waited somewhere comes
// all at once, what is live comes as far apart as it was made. The zero value has seen none. It is not safe for
// concurrent use.
type Pulse struct {
	made, came time.Time
	live       bool
}

const (
	pulseApart     = 5 * time.Second // between two messages that tell
	pulseTolerance = 2 * time.Second // for whole seconds, and ways that are not always as fast
)

// Live takes in a message of which the times say that it is not of now: when it was made, by a clock that may be wrong,
// and when it came. It reports whether the message is live all the same, of which the second one can tell.
func (p *Pulse) Live(made, came time.Time) bool {
	apart := came.Sub(p.came)
	if p.came.IsZero() || (apart-made.Sub(p.made)).Abs() > pulseTolerance {
		*p = Pulse{made: made, came: came}
	} else if apart >= pulseApart {
		*p = Pulse{made: made, came: came, live: true}
	}
	return p.live
}
