//go:build integration

package blkmaker

import (
	"testing"

	"btcpool/internal/bus"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// TestKafkaForgets has Apache Kafka lose the last solved share, which was taken, and another one take its place while
// blkmaker is away; then the topic is made anew.
func TestKafkaForgets(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	kafka := rig.StartKafka(t, t.TempDir())
	p.cfg.Kafka.Brokers = []string{kafka.Addr}
	topics := p.cfg.Kafka.Topics
	p.bus = testkit.Bus(t, p.cfg.Kafka, topics.RawGBT, topics.Job, topics.SolvedShare)
	garbage := bus.Message{Value: []byte("no solved share")}
	foundWhileAway := func() {
		t.Helper()
		hash := p.find(t)
		p.write(t, topics.SolvedShare, garbage, garbage)
		s, stop := p.start(t)
		p.eventuallyState(t, hash, store.Accepted)
		testkit.Eventually(t, "all done", func() bool { return len(s.room)+len(s.waiting) == 0 })
		stop()
	}
	foundWhileAway()
	foundWhileAway()

	const bytes = 300 // at least the last three messages
	kafka.LoseEnd(t, topics.SolvedShare, bytes)
	foundWhileAway()

	testkit.DeleteTopic(t, p.cfg.Kafka, topics.SolvedShare)
	p.bus = testkit.Bus(t, p.cfg.Kafka, topics.SolvedShare)
	p.write(t, topics.SolvedShare, garbage)
	foundWhileAway()
	rows, err := p.store.Blocks(t.Context(), 1000, 0)
	must(t, err)
	if len(rows) != 4 {
		t.Errorf("%d rows of found blocks, want 4", len(rows))
	}
}
