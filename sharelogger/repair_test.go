package sharelogger_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/service"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
	"btcpool/sharelogger"
)

// repair runs a sharelogger that repairs monday's file.
func (p *pool) repair(t *testing.T) error {
	t.Helper()
	cfg := p.cfg
	cfg.Repair = sharefile.DayOf(monday)
	svc, err := sharelogger.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()})
	if err != nil {
		return err
	}
	return svc.Run(t.Context())
}

func TestRepair(t *testing.T) {
	t.Parallel()
	var want []uint32
	for nonce := range uint32(40) {
		want = append(want, nonce+1)
	}
	flip := func(at float64) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			file[int(at*float64(len(file)))] ^= 8
			if err := os.WriteFile(path, file, 0o640); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, damage := range map[string]func(t *testing.T, path string){
		"beginning": flip(0), "middle": flip(0.5), "end": flip(0.99),
		"half of it is gone": func(t *testing.T, path string) {
			info, err := os.Stat(path)
			if err == nil {
				err = os.Truncate(path, info.Size()/2)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"the file is gone": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPool(t)
			_, stop := p.start(t)
			for nonce := uint32(1); nonce <= 40; nonce++ {
				day := int64(0)
				if nonce > 30 {
					day = 86400
				}
				p.writeTo(t, byte(nonce%3), newShare(nonce, monday+day))
				testkit.Eventually(t, "the share", func() bool { return len(p.nonces(t)) == int(nonce) })
			}
			if err := p.repair(t); err == nil || !strings.Contains(err.Error(), "in use") && !strings.Contains(err.Error(), "locked") {
				t.Errorf("repaired beside who writes: %v", err)
			}
			stop()
			path := sharefile.Path(p.cfg.DataDir, p.cfg.Chain, sharefile.DayOf(monday))
			damage(t, path)
			for range 2 {
				if err := p.repair(t); err != nil {
					t.Fatal(err)
				}
			}
			// What the end of a newer file lost is taken again by who writes.
			_, stop = p.start(t)
			testkit.Eventually(t, "all shares", func() bool { return len(p.nonces(t)) >= len(want) })
			p.writeTo(t, 0, newShare(41, monday))
			testkit.Eventually(t, "one more", func() bool { return len(p.nonces(t)) > len(want) })
			stop()
			if diff := cmp.Diff(append(slices.Clone(want), 41), p.nonces(t)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			kept, err := filepath.Glob(path + ".damaged-*")
			if err != nil || len(kept) > 1 {
				t.Errorf("kept %v, %v", kept, err)
			}
		})
	}
}
