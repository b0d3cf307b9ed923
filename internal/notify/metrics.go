package notify

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

type metrics struct {
	messages *prometheus.CounterVec // kind; result: sent, failed (a try), dropped
}

func newMetrics(reg prometheus.Registerer, n *Notifier) *metrics {
	set := telemetry.Metrics(reg, "notify")
	set.GaugeFunc("oldest_waiting_seconds", "Age of the oldest message that is not sent, 0 without any.", func() float64 { return n.oldest(time.Now()).Seconds() })
	set.GaugeFunc("untracked_conditions", "Conditions at the last look that are not told of because too many others are tracked.", func() float64 {
		n.mu.Lock()
		defer n.mu.Unlock()
		return float64(n.state.untracked)
	})
	m := &metrics{messages: set.Counters("messages_total", "Messages by what became of them; failed counts tries.", "kind", "result")}
	for _, t := range n.targets { // so that the first one is an increase
		for _, result := range []string{"sent", "failed", "dropped"} {
			m.messages.WithLabelValues(string(t.Kind), result)
		}
	}
	return m
}

// oldest is the age of the oldest message that is not sent.
func (n *Notifier) oldest(now time.Time) (age time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, q := range n.state.Queue {
		age = max(age, now.Sub(q.Message.Time))
	}
	return age
}
