package sserver

import (
	"testing"

	"btcpool/sserver/operator"
)

// Looking at 1,000 sessions.
func BenchmarkVisit(b *testing.B) {
	s := benchService(b)
	benchMiners(b, s)
	b.ReportAllocs()
	for b.Loop() {
		seen := 0
		if err := (operated{s}).Visit(b.Context(), func(s operator.Session) { seen += len(s.View().Workers) }); err != nil {
			b.Fatal(err)
		}
		if seen != benchSockets {
			b.Fatal(seen)
		}
	}
}

// For how long a loop is kept from its work at a time.
func BenchmarkVisitStep(b *testing.B) {
	s := benchService(b)
	benchMiners(b, s)
	var step []*session
	for _, one := range s.allSessions(b.Context()) {
		if one.loop == s.loops[0] && len(step) < visitStep {
			step = append(step, one)
		}
	}
	views := 0
	for b.Loop() {
		if err := s.loops[0].Call(b.Context(), func() {
			for _, one := range step {
				s.loops[0].visit(one, func(s *session) { views += len(operatedSession{s}.View().Workers) })
			}
		}); err != nil {
			b.Fatal(err)
		}
	}
	if len(step) != visitStep || views == 0 {
		b.Fatal(len(step), views)
	}
}
