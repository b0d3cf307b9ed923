package sserver

import (
	"net/http/httptest"
	"testing"
)

// A page of 1,000 sessions.
func BenchmarkAdminSessions(b *testing.B) {
	s := benchService(b)
	benchMiners(b, s)
	a := &adminAPI{srv: s}
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequestWithContext(b.Context(), "GET", "/api/v1/sessions?limit=1000", nil)
		if _, err := a.getSessions(r); err != nil {
			b.Fatal(err)
		}
	}
}

// For how long a loop is kept from its work at a time.
func BenchmarkAdminStep(b *testing.B) {
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
				s.loops[0].visit(one, func(s *session) { views += len(s.view().Workers) })
			}
		}); err != nil {
			b.Fatal(err)
		}
	}
	if len(step) != visitStep || views == 0 {
		b.Fatal(len(step), views)
	}
}
