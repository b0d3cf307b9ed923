package v1

import "testing"

func TestParsePassword(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		password string
		want     Wishes
	}{
		{"x", Wishes{}},
		{"", Wishes{}},
		{"d=1024", Wishes{Start: 10, HasStart: true}},
		{"x, d=1025 ,md=0.5", Wishes{Start: 11, HasStart: true, Floor: -1, HasFloor: true}},
		{"d=0,md=-1", Wishes{}},
		{"d=NaN,md=x,d", Wishes{}},
	} {
		t.Run(test.password, func(t *testing.T) {
			t.Parallel()
			if got := parsePassword(test.password); got != test.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}
