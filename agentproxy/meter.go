package agentproxy

import (
	"math"
	"time"
)

// meterSpan is over what time a meter averages.
const meterSpan = 10 * time.Minute

// meter measures a rate as a mean that fades out, which is right from the first moment on: it is divided by the time
// that has passed, until that is long.
type meter struct {
	sum   float64
	at    time.Time
	since time.Time
}

func newMeter(now time.Time) meter { return meter{at: now, since: now} }

func (m *meter) add(amount float64, now time.Time) {
	m.sum = m.fadedTo(now) + amount
	m.at = now
}

func (m *meter) fadedTo(now time.Time) float64 {
	return m.sum * math.Exp(-now.Sub(m.at).Seconds()/meterSpan.Seconds())
}

// perSecond returns the rate, 0 when there is nothing to say yet.
func (m *meter) perSecond(now time.Time) float64 {
	span := meterSpan.Seconds()
	covered := span * (1 - math.Exp(-now.Sub(m.since).Seconds()/span))
	if covered <= 0 {
		return 0
	}
	return m.fadedTo(now) / covered
}
