package agentproxy

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"btcpool/internal/agentwire"
	"btcpool/internal/config"
	"btcpool/internal/poll"
	"btcpool/internal/testkit"
)

// deaf is the link of a machine that takes all and says nothing: more of them fit than a process may have sockets.
type deaf struct{ poll.Link }

func (deaf) Attach(*poll.Loop, poll.Owner) error { return nil }
func (deaf) Want(bool, bool)                     {}
func (deaf) Read([]byte) (int, error)            { return 0, nil }
func (deaf) Write(b []byte) (int, error)         { return len(b), nil }
func (deaf) Sent() bool                          { return true }
func (deaf) CloseWrite() bool                    { return false }
func (deaf) Close()                              {}

// crowd has n machines log in that have no sockets.
func (s *Service) crowd(t testing.TB, n int) {
	t.Helper()
	const each = 1000 // at a time, so that the loop does other things between
	for from := 0; from < n; from += each {
		if err := s.loop.Call(t.Context(), func() {
			for i := from; i < min(from+each, n); i++ {
				s.add(deaf{}, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
				s.miners[len(s.miners)-1].receive([]byte(`{"id":1,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"1fffe000"}]}` + "\n" +
					`{"id":2,"method":"mining.subscribe","params":["Antminer S19 Pro/1.2"]}` + "\n" +
					fmt.Sprintf(`{"id":3,"method":"mining.authorize","params":["farm.row%dx%d","x"]}`+"\n", i>>8, i&0xff)))
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// register reads what the proxy says until n machines are registered.
func (l *fakeLink) register(n int) error {
	seen := make(map[agentwire.Session]bool)
	for len(seen) < n {
		first, err := l.r.Peek(1)
		if err == nil && first[0] != agentwire.Magic {
			_, err = l.r.ReadSlice('\n')
		} else if err == nil {
			var head []byte
			if head, err = l.r.Peek(4); err == nil {
				frame := make([]byte, int(head[2])|int(head[3])<<8)
				_, _ = io.ReadFull(l.r, frame)
				f, _, parseErr := agentwire.ParseFrame(frame, agentwire.MaxFrame)
				if reg, regErr := agentwire.ParseRegister(f); parseErr == nil && regErr == nil {
					seen[reg.Session] = true
				}
			}
		}
		if err != nil {
			return fmt.Errorf("%d of %d are registered: %w", len(seen), n, err)
		}
	}
	return nil
}

// As many machines as there are numbers for: all are registered on one link, on the next one as well, and all of them
// with all jobs that they may know, and the page open, leave room for garbage in 200 MB.
func TestAsManyMinersAsThereAreNumbers(t *testing.T) {
	p := newFakePool(t)
	s := proxyOf(t, func(c *Config) {
		c.Hold = config.Duration(50 * time.Millisecond)
		c.ReadTimeout = config.Duration(time.Hour) // the pool gives no sign of life
		c.Pools[0].NoExtensions = false
	}, p)
	l := p.login()
	_ = l.conn.SetReadDeadline(time.Time{})
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s.onLoop(t, func() { s.most = 2 * maxMiners }) // they need no descriptors
	heard := make(chan error, 1)
	go func() { heard <- l.register(maxMiners) }()
	s.crowd(t, maxMiners)
	if err := <-heard; err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, l.r) // ends with the connection

	l.say(notify("1", false))
	testkit.Until(t, testkit.Patience, "all have the job", func(ctx context.Context) error {
		missing := 0
		err := s.loop.Call(ctx, func() {
			for _, m := range s.miners {
				if m.next < 2 {
					missing++
				}
			}
		})
		if missing > 0 {
			err = fmt.Errorf("%d have not", missing)
		}
		return err
	})
	s.onLoop(t, func() {
		for _, m := range s.miners {
			for range 2 * maxSentJobs {
				m.remember(m.link.work, 0)
			}
		}
	})
	// One more is turned away.
	r := dial(t, s)
	r.say(`{"id":1,"method":"mining.subscribe","params":["cgminer/4"]}`)
	if line := r.hear(); line != `{"id":1,"result":null,"error":[30,"Internal error",null]}` {
		t.Errorf("one too many: %s", line)
	}
	page := new(snapshot) // somebody looks at it
	s.onLoop(t, func() { s.fill(page) })
	t.Logf("%s with garbage", resident(t))
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(page)
	heap := float64(after.HeapAlloc - before.HeapAlloc)
	t.Logf("%d miners with %d jobs each: %.0f MB of heap, %.0f bytes each", maxMiners, maxSentJobs, heap/1e6, heap/float64(maxMiners))
	if heap > 125e6 {
		t.Error("that is too much")
	}

	l.conn.Close()
	l = p.login()
	_ = l.conn.SetReadDeadline(time.Time{})
	if err := l.register(maxMiners); err != nil {
		t.Fatal(err)
	}
	s.onLoop(t, func() {
		for _, m := range s.miners {
			if m.link == nil {
				t.Fatal("one has no link")
			}
		}
	})
}

// resident is what the process has of the machine's memory.
func resident(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err.Error()
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "VmHWM") {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(lines, ", ")
}
