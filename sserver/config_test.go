package sserver

import (
	"fmt"
	"strings"
	"testing"

	"btcpool/internal/job"
)

func TestVersionMask(t *testing.T) {
	t.Parallel()
	for mask, want := range map[string]string{
		"1fffe000": "", "1fffffe0": "", "00000000": "",
		"1fffe00":  "8 hex digits",
		"3fffe000": "1fffffe0 only", "e0000000": "1fffffe0 only", "ffffffff": "1fffffe0 only", "1fffe010": "1fffffe0 only",
	} {
		cfg := DefaultConfig()
		cfg.VersionMask = mask
		err := fmt.Sprint(cfg.Validate())
		if strings.Contains(err, "version_mask") != (want != "") || !strings.Contains(err, want) {
			t.Errorf("%s: %s, want %q", mask, err, want)
		}
	}
}

func TestOutOfTime(t *testing.T) {
	t.Parallel()
	hard := &work{StratumJob: &job.StratumJob{Bits: 0x1b00ffff, MinTime: 1000}, tip: 1}
	easy := &work{StratumJob: &job.StratumJob{Bits: 0x1d00ffff, MinTime: 2000}, tip: 1}
	var b jobBook
	b.round.Store(&round{work: easy})
	for _, test := range []struct {
		w    *work
		time uint32
		want bool
	}{{hard, 1999, false}, {hard, 2000, true}, {easy, 2000, false}} {
		if got := b.outOfTime(test.w, test.time); got != test.want {
			t.Errorf("bits %08x at %d: %t", test.w.Bits, test.time, got)
		}
	}
}
