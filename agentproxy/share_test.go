package agentproxy

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"testing"
	"time"

	"btcpool/internal/agentwire"
	"btcpool/internal/config"
	"btcpool/internal/share"
)

// shareRound returns what has each of n machines send a share, the batch go to the pool, and the verdicts come back. It is
// to be called by the loop.
func shareRound(t testing.TB, n int) (s *Service, round func()) {
	t.Helper()
	p := newFakePool(t)
	s = proxyOf(t, func(c *Config) {
		c.Hold = config.Duration(time.Hour)
		c.ReadTimeout = config.Duration(time.Hour)
		c.Pools[0].NoExtensions = false
	}, p)
	l := p.loginWith("1fffe000", `,"batch"`)
	_ = l.conn.SetReadDeadline(time.Time{})
	go io.Copy(io.Discard, l.r) // ends with the connection
	s.crowd(t, n)
	lines := make([][]byte, n)
	const nonceAt = len(`00000000","00002000"]}`) + 1 // from the end
	var scratch [4]byte
	verdicts := agentwire.Verdicts{Statuses: make([]share.Status, n)}
	for i := range verdicts.Statuses {
		verdicts.Statuses[i] = share.StatusAccept
	}
	for i := range lines {
		lines[i] = fmt.Appendf(nil, `{"id":%d,"method":"mining.submit","params":["farm.row","0","00000000","65000000","00000000","00002000"]}`+"\n", i)
	}
	nonce := uint32(0)
	return s, func() {
		for i, m := range s.miners {
			nonce++
			line := lines[i]
			hex.Encode(line[len(line)-nonceAt:], binary.BigEndian.AppendUint32(scratch[:0], nonce))
			m.receive(line)
			m.settle()
		}
		to := s.miners[0].link
		verdicts.First = uint16(to.submits)
		to.flush()
		f, _, err := agentwire.ParseFrame(verdicts.AppendTo(nil), agentwire.MaxFrame)
		if err != nil {
			t.Fatal(err)
		}
		to.frame(f)
		if len(to.questions) > 0 {
			t.Fatalf("%d have no answer", len(to.questions))
		}
	}
}

// A share costs an allocation, the id of its request, and its part of what a batch costs.
func TestAllocationsOfAShare(t *testing.T) {
	const machines = 50
	s, round := shareRound(t, machines)
	s.onLoop(t, func() {
		if n := testing.AllocsPerRun(100, round) / machines; n > 1.5 {
			t.Errorf("%.1f allocations", n)
		} else {
			t.Logf("%.2f allocations", n)
		}
	})
}

// A share from a machine's line to the answer, without sockets but for the link's.
func BenchmarkShare(b *testing.B) {
	const machines = 50
	s, round := shareRound(b, machines)
	b.ReportAllocs()
	s.onLoop(b, func() {
		for i := 0; i < b.N; i += machines {
			round()
		}
	})
}
