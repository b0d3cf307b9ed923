package main

import (
	"slices"
	"strings"
	"testing"

	"btcpool/auxmaker"
	"btcpool/blkmaker"
	"btcpool/gbtmaker"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/jobmaker"
	"btcpool/poolwatcher"
	"btcpool/sharelogger"
	"btcpool/slparser"
	"btcpool/sserver"
	"btcpool/statshttpd"
)

// TestVariablesAreKnown keeps the list by which a service tells a mistyped variable from one of another service.
func TestVariablesAreKnown(t *testing.T) {
	t.Parallel()
	var names []string
	for _, cfg := range []any{
		auxmaker.Config{},
		blkmaker.Config{},
		gbtmaker.Config{},
		jobmaker.Config{},
		poolwatcher.Config{},
		sharelogger.Config{},
		slparser.Config{},
		sserver.Config{},
		statshttpd.Config{},
		Config{},
	} {
		names = append(names, service.Variables(cfg)...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	testkit.Golden(t, "../../../internal/service/variables.txt", []byte(strings.Join(names, "\n")+"\n"))
}
