package blkmaker

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
)

// without takes the database away until back is called.
func (p *pool) without(t *testing.T) (back func()) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "dsn")
	p.cfg.Database = store.Config{DSNFile: file}
	return func() { must(t, os.WriteFile(file, []byte(p.dsn), 0o600)) }
}

// forget makes all jobs and templates unknown, as time does.
func (p *pool) forget(t *testing.T, more ...string) {
	t.Helper()
	for _, name := range append(more, "cache") {
		must(t, os.RemoveAll(filepath.Join(p.cfg.DataDir, name)))
	}
	topics := &p.cfg.Kafka.Topics
	topics.Job, topics.RawGBT = topics.Job+"2", topics.RawGBT+"2"
}

// A block that was submitted while the database was away gets its row, however many starts later that is back and
// whatever is forgotten meanwhile but the journal.
func TestRowLater(t *testing.T) {
	t.Parallel()
	for name, forgotten := range map[string][]string{"file there": nil, "file gone": {"blocks"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startPool(t)
			back := p.without(t)
			s, stop := p.start(t)
			hash := p.findForSubPool(t, "farm")
			testkit.Eventually(t, "block at the node", func() bool { return p.node.Height() == 1 })
			testkit.Eventually(t, "row missed", func() bool { return s.journal.unwritten() == 1 })
			testkit.Eventually(t, "block kept", func() bool {
				_, err := s.archive.read(1, hash)
				return err == nil
			})
			stop()
			_, err := p.node.Generate(t.Context(), 2)
			must(t, err)
			p.forget(t, forgotten...)
			for range 2 { // the second time what the first one left is all there is
				s, stop = p.start(t)
				testkit.Eventually(t, "row still missed", func() bool { return s.journal.unwritten() == 1 })
				stop()
			}
			back()
			s, _ = p.start(t)
			got := p.eventuallyState(t, hash, store.Confirmed)
			if got.Height != 1 || got.SubPool != "farm" || got.UserID != 7 || got.WorkerID != 5 || got.WorkerName != "alice.rig" || got.RewardSat != 50e8 ||
				got.Bits != easyBits || got.Size < 200 || got.Confirmations != 3 || time.Since(got.CreatedAt) > testkit.Patience {
				t.Errorf("%+v", got)
			}
			testkit.Eventually(t, "share done", func() bool { return len(s.room)+len(s.waiting) == 0 && s.journal.unwritten() == 0 })
		})
	}
}

// The same for blocks of other chains.
func TestMergedRowsLater(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	back := p.without(t)
	o := startOthers(t, 2)
	o.configure(&p.cfg)
	want := map[string]string{"a": o.aux[0].Hash(), "b": o.aux[1].Hash(), "rsk": o.rsk.Hash()[2:]}
	s, stop := p.start(t)
	aux, rsk := o.publish(t, p, func(*job.StratumJob) {})
	p.write(t, p.cfg.Kafka.Topics.AuxSolved, aux)
	p.write(t, p.cfg.Kafka.Topics.RSKSolved, rsk)
	testkit.Eventually(t, "blocks accepted", func() bool {
		return len(o.aux[0].Accepted())+len(o.aux[1].Accepted())+len(o.rsk.Accepted()) == 3
	})
	testkit.Eventually(t, "answers kept", func() bool {
		n := 0
		for _, share := range s.journal.pending() {
			if made := s.journal.madeOf(share.solvedKey); made != nil {
				for _, b := range made.Merged {
					if b.Verdict == resultAccepted {
						n++
					}
				}
			}
		}
		return n == 3
	})
	stop()
	p.forget(t)
	back()
	s, _ = p.start(t)
	rows := p.merged(t, 3)
	for chain, hash := range want {
		row := rows[chain]
		if row.Hash != hash || row.State != store.Accepted || row.Response == "" || row.Proof == "" && chain != "rsk" {
			t.Errorf("%s: %+v", chain, row)
		}
	}
	testkit.Eventually(t, "shares done", func() bool { return len(s.room)+len(s.waiting) == 0 })
	for _, kind := range []kind{kindAux, kindRSK} {
		if n := testutil.ToFloat64(s.metrics.merged.WithLabelValues(string(kind), resultRecorded)); n != 1 {
			t.Errorf("%v shares of %s recorded", n, kind)
		}
	}
}

// A journal of before there were "made" lines says by its answers that a block was submitted.
func TestRowOfOldJournal(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	_, _, solved, hash := p.messages(t)
	s, err := New(p.cfg, deps(t))
	must(t, err)
	key := keyOf(t, hash)
	_, err = s.journal.take(key, solved.Value, time.Now(), position{})
	must(t, err)
	s.journal.answer(key, "0", verdictAccepted, "")
	must(t, s.Close())
	s, _ = p.start(t)
	testkit.Eventually(t, "row", func() bool { return p.block(t, hash).State == store.Submitted })
	if n := testutil.ToFloat64(s.metrics.solved.WithLabelValues(resultUnknown)); n != 0 {
		t.Error("share counts as unknown")
	}
}

// Compacting the journal loses nothing of what is open.
func TestJournalCompactsMade(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := testJournal(t, dir)
	j.mustTake(t, 1, true, position{})
	j.make(numbered(1), &made{Size: 285})
	j.answer(numbered(1), "0", verdictAccepted, "")
	aux := solvedKey{kindAux, numbered(2).Hash}
	_, err := j.take(aux, []byte("2"), time.Now(), position{})
	must(t, err)
	j.make(aux, &made{Merged: []mergedMade{{Chain: "a/b", Hash: "11"}, {Chain: "c", Hash: "22"}}})
	j.answer(aux, "a/b/1", resultAccepted, "true")
	j.answer(aux, "a/b/0", resultUndecided, "later, of another node")
	must(t, j.compact())
	must(t, j.close())
	j = testJournal(t, dir)
	if got := j.madeOf(numbered(1)); got == nil || got.Size != 285 {
		t.Errorf("block: %+v", got)
	}
	if got := j.madeOf(aux); got == nil || got.Merged[0] != (mergedMade{"a/b", "11", "", resultAccepted, "true"}) || got.Merged[1].Verdict != "" {
		t.Errorf("merged: %+v", got)
	}
	if n := j.unwritten(); n != 2 {
		t.Errorf("%d without row", n)
	}
}

func deps(t *testing.T) service.Deps { return service.Deps{Log: zerolog.New(zerolog.NewTestWriter(t))} }

func keyOf(t *testing.T, hash string) solvedKey {
	t.Helper()
	h, err := chainhash.NewHashFromStr(hash)
	must(t, err)
	return solvedKey{kindBlock, *h}
}

// Killed at any moment while the database is away, and started again when its job is forgotten, a blkmaker writes down
// each block that has come to the node.
func TestRowsKilledAnytime(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	p.listen(t)
	back := p.without(t)
	onChain := 0
	for round := time.Duration(1); round <= 8 || onChain == 0; round++ {
		if round > 50 {
			t.Fatal("killed before any block had come to the node")
		}
		_ = os.Remove(p.cfg.Database.DSNFile)
		kill := p.child(t)
		solved, hash := p.publish(t)
		time.Sleep(rand.N(50 * time.Millisecond)) // for job and template
		sender(t, p.cfg.Handover.Listen).Send(solved.Value)
		time.Sleep(rand.N(round * 8 * time.Millisecond)) // the moment is what this is about
		kill()
		p.forget(t, "blocks")
		_, err := p.rpc.Block(t.Context(), hash)
		back()
		if err != nil {
			continue
		}
		onChain++
		kill = p.child(t)
		p.eventuallyState(t, hash, store.Accepted)
		kill()
	}
	t.Logf("%d blocks had come to the node", onChain)
}
