package sharelogger_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/sharelogger"
)

const group = "sharelog_write_btc"

// btcpool is its sharelogger: it appends gzip members to the day files and commits an offset, both without a word of
// whose they are. Its shares have no id.
type btcpool struct {
	*pool
	shares []share.Share // of the topic, in partition 0
	today  int64
}

func newBtcpool(t *testing.T) *btcpool {
	t.Helper()
	cfg := testConfig(t.TempDir(), testkit.Broker(t).Brokers[0])
	cfg.Kafka.Partitions = 1
	return &btcpool{today: monday, pool: &pool{cfg: cfg, client: testkit.Bus(t, cfg.Kafka, cfg.Kafka.Topics.Share)}}
}

// mine adds n shares to the topic, of today and tomorrow.
func (b *btcpool) mine(t *testing.T, n int) {
	t.Helper()
	for range n {
		nonce := uint32(len(b.shares))
		s := newShare(nonce, b.today+int64(nonce%2)*86400)
		s.ID = share.ID{}
		b.shares = append(b.shares, s)
	}
	b.writeTo(t, 0, b.shares[len(b.shares)-n:]...)
}

// log writes the shares from one offset to another.
func (b *btcpool) log(t *testing.T, from, to int64) {
	t.Helper()
	testkit.AppendShares(t, b.cfg.DataDir, b.cfg.Chain, b.shares[from:to])
}

// commit is what its library does every five seconds, and at its end.
func (b *btcpool) commit(t *testing.T, next int64) {
	t.Helper()
	if err := b.client.Commit(t.Context(), group, b.cfg.Kafka.Topics.Share, map[int]int64{0: next}, ""); err != nil {
		t.Fatal(err)
	}
}

func (b *btcpool) committed(t *testing.T) int64 {
	t.Helper()
	committed, err := b.client.Committed(t.Context(), group, b.cfg.Kafka.Topics.Share)
	if err != nil {
		t.Fatal(err)
	}
	return committed[0].Next
}

// run has our sharelogger write all that is in the topic.
func (b *btcpool) run(t *testing.T) {
	t.Helper()
	_, stop := b.start(t)
	testkit.Eventually(t, "all shares", func() bool { return len(b.nonces(t)) >= len(b.shares) })
	stop()
}

// wantOnce wants each share of the topic in the log, once.
func (b *btcpool) wantOnce(t *testing.T) {
	t.Helper()
	var want []uint32
	for i := range b.shares {
		want = append(want, uint32(i))
	}
	if diff := cmp.Diff(want, b.nonces(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestTakesTurns has btcpool's sharelogger and ours take over from each other: nothing is lost and nothing there twice.
func TestTakesTurns(t *testing.T) {
	t.Parallel()
	b := newBtcpool(t)
	b.cfg.GroupID = group
	for range 3 {
		b.mine(t, 20)
		from := b.committed(t)
		to := from + 15
		b.log(t, from, to)
		b.commit(t, to)
		b.mine(t, 5) // between the two

		b.run(t)
		b.wantOnce(t)
		b.mine(t, 3)
		b.run(t) // from our own checkpoint
		b.wantOnce(t)
		if got := b.committed(t); got != int64(len(b.shares)) {
			t.Errorf("offset %d is left for btcpool, of %d shares", got, len(b.shares))
		}
	}
}

// TestOwnOffsetIsNoNews: what we have committed ourselves does not stand above the files, which can be ahead of it after
// a crash, and behind it when they come from a backup.
func TestOwnOffsetIsNoNews(t *testing.T) {
	t.Parallel()
	b := newBtcpool(t)
	b.cfg.GroupID = group
	b.mine(t, 10)
	b.run(t)
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(b.cfg.DataDir)); err != nil {
		t.Fatal(err)
	}
	committed, err := b.client.Committed(t.Context(), group, b.cfg.Kafka.Topics.Share)
	if err != nil {
		t.Fatal(err)
	}
	b.mine(t, 10)
	b.run(t)
	if err := b.client.Commit(t.Context(), group, b.cfg.Kafka.Topics.Share, map[int]int64{0: 10}, committed[0].Note); err != nil {
		t.Fatal(err)
	}
	b.mine(t, 1)
	b.run(t)
	b.wantOnce(t)

	b.cfg.DataDir = backup
	b.mine(t, 1)
	b.run(t)
	b.wantOnce(t)
}

func TestRefusesToGuess(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		setUp func(t *testing.T, b *btcpool)
		want  string
	}{
		{"files of others", func(*testing.T, *btcpool) {}, "set kafka_group_id to its consumer group, to go on where it stopped, or start to earliest or latest"},
		{"wrong group", func(_ *testing.T, b *btcpool) { b.cfg.GroupID = "other" }, `has left no offset in consumer group "other"`},
		{"files that others went on with", func(t *testing.T, b *btcpool) {
			b.commit(t, 10)
			b.cfg.GroupID = group
			b.run(t)
			b.log(t, 10, 20)
			b.cfg.GroupID, b.cfg.Start = "", "latest"
		}, "set kafka_group_id to its consumer group, to go on where it stopped"},
		{"files that others went on with in another group", func(t *testing.T, b *btcpool) {
			b.commit(t, 10)
			b.cfg.GroupID = group
			b.run(t)
			b.log(t, 10, 20)
		}, `has left no offset in consumer group "` + group + `"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newBtcpool(t)
			b.mine(t, 20)
			b.log(t, 0, 10)
			test.setUp(t, b)
			before := b.nonces(t)
			s, err := sharelogger.New(b.cfg, service.Deps{Log: zerolog.Nop()})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if diff := cmp.Diff(before, b.nonces(t)); diff != "" {
				t.Errorf("it has written:\n%s", diff)
			}
		})
	}
}

// TestStart has the operator say where to begin beside the files of other software.
func TestStart(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		start  string
		logged int64 // by others, of ten
		added  int   // by us, with ten more
	}{{"earliest", 0, 20}, {"earliest", 10, 20}, {"latest", 10, 10}} {
		b := newBtcpool(t)
		b.cfg.Start = test.start
		b.mine(t, 10)
		b.log(t, 0, test.logged)
		b.today += 2 * 86400
		want := int(test.logged) + test.added
		svc, stop := b.start(t)
		testkit.Eventually(t, "ready", func() bool { return svc.Ready() == nil })
		b.mine(t, 10)
		testkit.Eventually(t, "the shares", func() bool { return len(b.nonces(t)) == want })
		stop()
		// The first flush is enough to know where to go on, for the files of earlier days as well.
		b.mine(t, 1)
		_, stop = b.start(t)
		testkit.Eventually(t, "one more", func() bool { return len(b.nonces(t)) >= want+1 })
		stop()
		if got := len(b.nonces(t)); got != want+1 {
			t.Errorf("%s beside %d shares: %d in the log, want %d", test.start, test.logged, got, want+1)
		}
	}
}

// TestTwoAtOnce notices that btcpool's sharelogger still runs.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	b := newBtcpool(t)
	b.cfg.GroupID = group
	b.mine(t, 10)
	b.log(t, 0, 10)
	b.commit(t, 10)
	commits := func(result string) func() bool {
		return func() bool {
			return testkit.Metric(t, b.registry, "btcpool_sharelogger_group_commits_total", "result", result) == 1
		}
	}
	_, _ = b.start(t)
	b.mine(t, 1)
	testkit.Eventually(t, "ours", commits("ok"))
	b.commit(t, 11)
	b.mine(t, 1)
	testkit.Eventually(t, "the conflict", commits("conflict"))
}
