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
	var log []share.Share
	testkit.Until(w.t, patience, name+": share log and tables hold what was acknowledged", func(ctx context.Context) error {
		log = w.pool.ReadLog(w.t)
		if err := w.ledger.Compare(log); err != nil {
			return err
		}
		return rig.CompareStatistics(ctx, conn, log)
	})
	w.today(log)
	w.live(log)
	w.blocks()
}

// live holds the last hour of statshttpd's API against the share log, as long as it can be the same: it counts what the
// topic holds, in windows of its own clock.
func (w *world) live(log []share.Share) {
	w.t.Helper()
	if w.clocked || !w.ledger.Whole() || time.Since(w.began) > 50*time.Minute {
		return
	}
	var want int64
	for _, s := range log {
		if s.Status == share.StatusAccept {
			want++
		}
	}
	testkit.Until(w.t, patience, "statshttpd's API agrees with the share log", func(ctx context.Context) error {
		var answer struct {
			Shares struct{ Accepted struct{ Shares int64 } } `json:"shares_1h"`
		}
		err := w.pool.Get(ctx, "/api/v1/pool", &answer)
		if got := answer.Shares.Accepted.Shares; err == nil && got != want {
			err = fmt.Errorf("it counts %d accepted shares, the log %d", got, want)
		}
		return err
	})
}

// today holds slparser's answer for the present day against the log: what was earned, for work in whole difficulties is
// nothing here. On regtest each share is worth a block.
func (w *world) today(log []share.Share) {
	w.t.Helper()
	testkit.Until(w.t, patience, "slparser's API agrees with the share log", func(ctx context.Context) error {
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
			return fmt.Errorf("it says %+v, the log %d", answer.Data, want)
		}
		return nil
	})
}

// blocks holds found_blocks against the node's chain.
func (w *world) blocks() {
	w.t.Helper()
	conn := w.db.Open(w.t)
	testkit.Until(w.t, patience, "found_blocks agrees with the chain", func(ctx context.Context) error {
		_, err := rig.CompareBlocks(ctx, conn, w.node.Client, w.forgotten)
		return err
	})
}
