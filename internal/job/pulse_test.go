package job_test

import (
	"testing"
	"time"

	"btcpool/internal/job"
)

func TestPulse(t *testing.T) {
	t.Parallel()
	type message struct{ made, came float64 } // seconds
	for name, test := range map[string]struct {
		messages []message
		live     []bool
	}{
		"a clock an hour behind":      {[]message{{-3600, 0}, {-3570, 30}, {-3569, 30.4}, {-3540, 60}}, []bool{false, true, true, true}},
		"a clock an hour ahead":       {[]message{{3600, 0}, {3630, 30}, {3660, 60}}, []bool{false, true, true}},
		"a backlog":                   {[]message{{-3600, 0}, {-3570, 0.001}, {-3540, 0.002}, {-3510, 0.003}}, []bool{false, false, false, false}},
		"a slow backlog":              {[]message{{-3600, 0}, {-3570, 6}, {-3540, 12}}, []bool{false, false, false}},
		"a burst in a backlog":        {[]message{{-3600, 0}, {-3599, 0.001}, {-3599, 0.002}}, []bool{false, false, false}},
		"set wrong another way":       {[]message{{-3600, 0}, {-3570, 30}, {3660, 60}, {3690, 90}}, []bool{false, true, false, true}},
		"an hour behind, a tenth off": {[]message{{-3600, 0}, {-3589, 10}, {-3578, 20}, {-3567, 30}}, []bool{false, true, true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p job.Pulse
			start := time.Unix(1_700_000_000, 0)
			at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
			for i, m := range test.messages {
				if got := p.Live(at(m.made), at(m.came)); got != test.live[i] {
					t.Errorf("message %d: live is %v", i, got)
				}
			}
		})
	}
}
