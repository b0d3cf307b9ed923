package blkmaker

import (
	"bytes"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
)

// verify runs the mode and returns what it prints, and whether the database is as it should be.
func (p *pool) verify(t *testing.T, change func(*Config)) (report string, right bool) {
	t.Helper()
	cfg := p.cfg
	cfg.Verify = true
	if change != nil {
		change(&cfg)
	}
	must(t, cfg.Validate())
	s, err := New(cfg, deps(t))
	must(t, err)
	var out bytes.Buffer
	err = s.verify(t.Context(), &out)
	must(t, s.Close())
	if err != nil && !strings.HasSuffix(err.Error(), "differences") {
		t.Fatal(err)
	}
	return out.String(), err == nil
}

// exec changes the database as an accident does.
func (p *pool) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", strings.TrimPrefix(p.dsn, "sqlite:"))
	must(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), statement, args...)
	must(t, err)
}

// Rows that were lost, and states that are wrong, are found while blkmaker runs, and mended.
func TestVerify(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	o := startOthers(t, 1)
	o.configure(&p.cfg)
	s, _ := p.start(t)
	var found []store.Block
	for height := range int32(4) {
		hash := p.find(t)
		testkit.Eventually(t, "block at the node", func() bool { return p.node.Height() == height+1 })
		p.eventuallyState(t, hash, store.Accepted)
		found = append(found, p.block(t, hash))
	}
	aux, _ := o.publish(t, p, func(*job.StratumJob) {})
	p.write(t, p.cfg.Kafka.Topics.AuxSolved, aux)
	merged := p.merged(t, 1)["a"]
	_, _, invalid, _ := p.messages(t) // of no known job: nothing has come of it
	p.write(t, p.cfg.Kafka.Topics.SolvedShare, invalid)
	_, err := p.node.Generate(t.Context(), 2*buriedBy) // deep, so that the follower does not look
	must(t, err)
	for _, b := range found {
		p.eventuallyState(t, b.Hash, store.Confirmed)
	}
	testkit.Eventually(t, "other shares done", func() bool { return len(s.room) == 0 && len(s.waiting) == 1 })
	if report, right := p.verify(t, nil); !right || strings.Count(report, "\n") != 1 {
		t.Fatalf("differs:\n%s", report)
	}

	p.exec(t, "DELETE FROM found_blocks WHERE hash = ?", found[0].Hash)
	p.exec(t, "UPDATE found_blocks SET state = 'orphaned', is_orphaned = 1, confirmations = 0 WHERE hash = ?", found[1].Hash)
	p.exec(t, "DELETE FROM found_nmc_blocks")
	want := []string{
		fmt.Sprintf("0 %s of a has no row, was accepted", merged.Hash),
		fmt.Sprintf("1 %s no row, is confirmed, found by alice.rig", found[0].Hash),
		fmt.Sprintf("2 %s row says orphaned, is confirmed", found[1].Hash),
	}
	for _, mend := range []bool{false, true} {
		report, right := p.verify(t, func(cfg *Config) { cfg.Mend = mend })
		if right != mend {
			t.Errorf("mending %t: right %t", mend, right)
		}
		for _, line := range want {
			if mend {
				line += ": mended"
			}
			if !slices.Contains(strings.Split(report, "\n"), line) {
				t.Errorf("mending %t: no %q in\n%s", mend, line, report)
			}
		}
		if n := strings.Count(report, "\n"); n != len(want)+1 {
			t.Errorf("%d lines", n)
		}
	}
	if report, right := p.verify(t, nil); !right {
		t.Errorf("after mending:\n%s", report)
	}
	for _, was := range found[:2] {
		got := p.block(t, was.Hash)
		was.State, was.Confirmations = got.State, got.Confirmations
		if got != was || got.State != store.Confirmed {
			t.Errorf("mended row %+v, was %+v", got, was)
		}
	}
}

// Without journal the chain tells which blocks are ours, and files how they were: who found them nobody knows.
func TestVerifyChain(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	_, stop := p.start(t)
	hash := p.find(t)
	p.eventuallyState(t, hash, store.Accepted)
	_, err := p.node.Generate(t.Context(), 3) // another's
	must(t, err)
	stop()
	p.forget(t, "journal", "blocks")
	p.exec(t, "DELETE FROM found_blocks")
	if report, right := p.verify(t, nil); !right {
		t.Errorf("without a mark:\n%s", report)
	}
	report, right := p.verify(t, func(cfg *Config) { cfg.Mark, cfg.Since, cfg.Mend = "/test/", 1, true })
	if want := fmt.Sprintf("1 %s no row, is confirmed, known by its coinbase only: not mended, as nobody here knows who found it\n", hash); right || !strings.HasPrefix(report, want) {
		t.Errorf("right %t:\n%s", right, report)
	}
	if report, _ := p.verify(t, func(cfg *Config) { cfg.Mark, cfg.Since = "/test/", 2 }); strings.Contains(report, hash) {
		t.Errorf("since block 2:\n%s", report)
	}
	cfg := p.cfg
	cfg.Mark = "x"
	if cfg.Validate() == nil {
		t.Error("-mark without -verify and -since")
	}
}

func TestMarked(t *testing.T) {
	t.Parallel()
	regtest, err := bitcoin.NetworkByName("regtest")
	must(t, err)
	const ours, theirs = "bcrt1qwv4vhllgu3hsr0k3c2sspleh87dwey3wm0sw4t", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
	pays, err := regtest.PayoutScript(ours)
	must(t, err)
	coinbase := wire.NewMsgTx(1)
	coinbase.AddTxIn(&wire.TxIn{SignatureScript: []byte("\x01\x05/pool/")})
	coinbase.AddTxOut(&wire.TxOut{PkScript: []byte{0x6a}})
	coinbase.AddTxOut(&wire.TxOut{PkScript: pays})
	for mark, want := range map[string]bool{ours: true, theirs: false, "/pool/": true, "/other/": false} {
		script, err := regtest.PayoutScript(mark)
		if err != nil {
			script = nil
		}
		if got := marked(coinbase, mark, script); got != want {
			t.Errorf("%s: %t", mark, got)
		}
	}
}
