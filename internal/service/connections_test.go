package service_test

import (
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"btcpool/internal/service"
)

func TestConnections(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		files, wanted, served int
		warns                 bool
	}{
		{1 << 20, 100_000, 100_000, false},
		{1 << 16, 100_000, 57_344, true},
		{1024, 100, 100, false},
		{80, 120, 16, true},
		{65, 1, 1, false},
		{64, 1, 0, false},
		{20, 1, 0, false},
	} {
		var log strings.Builder
		served, err := service.Connections(test.wanted, test.files, zerolog.New(&log))
		if served != test.served || (err != nil) != (served == 0) {
			t.Errorf("%d descriptors: %d connections, %v", test.files, served, err)
		}
		if test.warns != strings.Contains(log.String(), "LimitNOFILE") {
			t.Errorf("%d descriptors: log %q", test.files, log.String())
		}
	}
}
