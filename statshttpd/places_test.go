package statshttpd

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParsePlaces(t *testing.T) {
	t.Parallel()
	for list, want := range map[string][]Place{
		"": nil, " ": nil,
		"stratum+tcp://pool.example.org:3333": {{"stratum+tcp://pool.example.org:3333", false, ""}},
		"stratum+tcp://:3333/":                {{"stratum+tcp://:3333", false, ""}},
		" stratum+tcp://[2001:db8::1]:3333  for ASICs ,stratum+ssl://:3334 the same, with TLS": nil,
		"stratum+tcp://a:3333 for ASICs, stratum+ssl://a:3334  with TLS,stratum+tls://:443": {
			{"stratum+tcp://a:3333", false, "for ASICs"}, {"stratum+ssl://a:3334", true, "with TLS"}, {"stratum+tls://:443", true, ""},
		},
		"pool.example.org:3333": nil, "stratum+tcp://pool.example.org": nil, "http://pool.example.org:80": nil,
		"stratum+tcp://u:S3CRET@a:3333": nil, "stratum+tcp://a:3333/x": nil, "stratum+tcp://a:3333,": nil, "stratum+tcp://a:x": nil,
	} {
		got, err := ParsePlaces(list)
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (want != nil || strings.TrimSpace(list) == "") {
			t.Errorf("%q: error %v (-want +got):\n%s", list, err, diff)
		}
		if err != nil && strings.Contains(err.Error(), "S3CRET") {
			t.Errorf("%v tells a secret", err)
		}
	}
}
