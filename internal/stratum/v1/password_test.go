package v1

import (
	"testing"

	"btcpool/internal/bitcoin"
)

func TestParsePassword(t *testing.T) {
	t.Parallel()
	start := func(n int) Wishes { return Wishes{Start: bitcoin.Difficulty(n), HasStart: true} }
	for _, test := range []struct {
		password string
		want     Wishes
	}{
		{"x", Wishes{}},
		{"", Wishes{}},
		{"d=1024", start(10)},
		{"x, d=1025 ,md=0.5", Wishes{Start: 11, HasStart: true, Floor: -1, HasFloor: true}},
		{"d=0,md=0", Wishes{}},
		{"d=,d", Wishes{}},
		{"D=1024", start(10)},
		{"d = 1024", start(10)},
		{" d=1024 ", start(10)},
		{"d=1024;x", start(10)},
		{"x;d=1024", start(10)},
		{"x d=1024", start(10)},
		{"diff=1024", start(10)},
		{"d=500K", start(19)},
		{"d=500 k,x", start(19)},
		{"d=1.5M", start(21)},
		{"d=65,536", start(16)},
		{"d=65 536", start(16)},
		{"d=65,536,md=1,024", Wishes{Start: 16, HasStart: true, Floor: 10, HasFloor: true}},
		{"d=1,048,576", start(20)},
		{"d=1_048_576", start(20)},
		{"d=1e3", start(10)},
		{"md=64,x", Wishes{Floor: 6, HasFloor: true}},
		{"d=65,5361", Wishes{Unclear: true}},
		{"d=inf", Wishes{Unclear: true}},
		{"d=NaN", Wishes{Unclear: true}},
		{"d=1e400", Wishes{Unclear: true}},
		{"d=-1", Wishes{Unclear: true}},
		{"d=0x10", Wishes{Unclear: true}},
		{"d=high", Wishes{Unclear: true}},
		{"d=K", Wishes{Unclear: true}},
		{"d=1024,md=x", Wishes{Start: 10, HasStart: true, Unclear: true}},
	} {
		t.Run(test.password, func(t *testing.T) {
			t.Parallel()
			if got := parsePassword(test.password); got != test.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}
