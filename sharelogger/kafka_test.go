//go:build integration

package sharelogger_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// TestKafkaForgets has Apache Kafka lose the end of the share topic, and others fill the place, while the service is away
// and while it is there; then the topic is made anew. There were more restarts of the server than a Dedup remembers.
func TestKafkaForgets(t *testing.T) {
	t.Parallel()
	kafka := rig.StartKafka(t, t.TempDir())
	p := &pool{cfg: testConfig(t.TempDir(), kafka.Addr)}
	p.cfg.Kafka.Partitions = 1
	topic := p.cfg.Kafka.Topics.Share
	p.client = testkit.Bus(t, p.cfg.Kafka, topic)

	var sent []share.Share
	epoch, seq := uint32(1700000000), uint64(0)
	send := func(n int) { // new ones
		for range n {
			seq++
			s := newShare(uint32(len(sent)+1), monday)
			s.ID = share.ID{Server: 1, Epoch: epoch, Seq: seq}
			sent = append(sent, s)
			p.writeTo(t, 0, s)
		}
	}
	again := func(n int) { // those that a spool with an old position sends twice
		for _, s := range sent[len(sent)-n:] {
			p.writeTo(t, 0, s)
		}
	}
	logged := func(what string) {
		t.Helper()
		last := sent[len(sent)-1].Nonce
		testkit.Eventually(t, what, func() bool { return slices.Contains(p.nonces(t), last) })
		var want []uint32
		for _, s := range sent {
			want = append(want, s.Nonce)
		}
		if diff := cmp.Diff(want, p.nonces(t)); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", what, diff)
		}
	}

	_, stop := p.start(t)
	for range 2 * share.EpochsKept {
		epoch, seq = epoch+1, 0
		send(3)
	}
	logged("all epochs")
	stop()

	const end = 2000 // bytes, about a dozen batches
	kafka.LoseEnd(t, topic, end)
	again(5)
	send(30)
	_, stop = p.start(t)
	send(1)
	logged("after the end was lost")
	rewinds := func() float64 { return testkit.Metric(t, p.registry, "btcpool_bus_read_rewinds_total") }
	if n := rewinds(); n != 1 {
		t.Errorf("%v rewinds while the service was away", n)
	}

	kafka.LoseEnd(t, topic, end) // the service is there
	again(5)
	send(30)
	logged("after the end was lost again")
	if n := rewinds(); n != 2 {
		t.Errorf("%v rewinds in all", n)
	}
	stop()

	testkit.DeleteTopic(t, p.cfg.Kafka, topic)
	p.client = testkit.Bus(t, p.cfg.Kafka, topic)
	epoch, seq = epoch+1, 0
	send(len(sent) + 50)
	_, stop = p.start(t)
	send(1)
	logged("after the topic was made anew")
	if n := rewinds(); n != 1 {
		t.Errorf("%v rewinds of a topic made anew", n)
	}
	stop()
}

func TestKafkaPartitionsAdded(t *testing.T) {
	t.Parallel()
	p := &pool{cfg: testConfig(t.TempDir(), rig.StartKafka(t, t.TempDir()).Addr)}
	testPartitionsAdded(t, p)
}
