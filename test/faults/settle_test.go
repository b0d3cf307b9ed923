//go:build integration

package faults

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

var waitsInSpool = regexp.MustCompile(`(?m)^btcpool_spool_depth_records\{.*\} [1-9].*$`)

// settle waits until all that must hold does.
func (w *world) settle(name string) {
	w.t.Helper()
	// A share that may be missing must not be one that is late.
	testkit.Until(w.t, patience, name+": the spools are empty", func(ctx context.Context) error {
		page, err := w.pool.Metrics(ctx, "sserver")
		if left := waitsInSpool.FindString(page); err == nil && left != "" {
			err = errors.New(left)
		}
		return err
	})
	conn := w.db.Open(w.t)
	w.pool.WaitLog(w.t, patience, name+": share log, tables and APIs hold what was acknowledged", func(ctx context.Context, log []share.Share) error {
		err := errors.Join(w.ledger.Compare(log), rig.CompareStatistics(ctx, conn, log), w.compareToday(ctx, log))
		if w.lastHourHasAll() {
			err = errors.Join(err, w.pool.CompareLive(ctx, log))
		}
		return err
	})
	testkit.Until(w.t, patience, name+": found_blocks agrees with the chain", func(ctx context.Context) error {
		_, err := rig.CompareBlocks(ctx, conn, w.node.Client, w.forgotten)
		return err
	})
}

// lastHourHasAll says whether the last hour of statshttpd's API can be the same as the share log: it counts what the
// topic holds, in windows of its own clock.
func (w *world) lastHourHasAll() bool {
	return !w.clocked && w.ledger.Whole() && time.Since(w.began) < 50*time.Minute
}

// compareToday holds slparser's answer for the present day against the log: what was earned, for work in whole
// difficulties is nothing here. On regtest each share is worth a block.
func (w *world) compareToday(ctx context.Context, log []share.Share) error {
	var want int64
	day := sharefile.DayOf(time.Now().Unix())
	for _, s := range log {
		if s.Status == share.StatusAccept && sharefile.DayOf(s.Time) == day {
			want += int64(50e8) >> (s.Height / 150)
		}
	}
	var answer struct {
		Data map[string][]struct{ Earn int64 }
	}
	if err := w.pool.GetStats(ctx, "/share_stats?user_id=0&worker_id=0&hour=24", &answer); err != nil {
		return err
	}
	if all := answer.Data["0"]; len(all) != 1 || all[0].Earn != want {
		return fmt.Errorf("slparser's API says %+v of today, the log %d", answer.Data, want)
	}
	return nil
}
