package switcher

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/guard"
	"btcpool/internal/poll"
)

// deaf is a link that takes all and says nothing.
type deaf struct {
	poll.Link

	sent []byte
}

func (*deaf) Attach(*poll.Loop, poll.Owner) error { return nil }
func (*deaf) Want(bool, bool)                     {}
func (*deaf) Read([]byte) (int, error)            { return 0, nil }
func (*deaf) Write(b []byte) (int, error)         { return len(b), nil }
func (*deaf) Sent() bool                          { return true }
func (*deaf) CloseWrite() bool                    { return true }
func (*deaf) Close()                              {}

// fuzzService is a service without sockets.
var fuzzService = sync.OnceValue(func() *Service {
	cfg := DefaultConfig()
	reg := prometheus.NewRegistry()
	s := &Service{
		cfg: cfg, log: zerolog.Nop(), metrics: newMetrics(reg), mask: cfg.versionMask(),
		guard: guard.New(cfg.Limits, guard.NewBans("", zerolog.Nop(), time.Now())), ids: &idPool{server: 1}, dials: make(chan struct{}),
	}
	s.serving, s.stopServing = context.WithCancel(context.Background())
	s.stopServing() // nobody is reached
	c := &chain{Chain: Chain{Name: "btc", Servers: []Server{{Addr: "127.0.0.1:1"}}}, sessions: s.metrics.onChain.WithLabelValues("btc")}
	c.servers = []*server{newServer(c.Servers[0], s.metrics.serverUp.WithLabelValues("btc", "a"))}
	s.chains = []*chain{c}
	return s
})

// fuzzSession returns one that is in a phase, at a server.
func fuzzSession(p phase) (*session, *deaf) {
	srv := fuzzService()
	l := &loop{srv: srv, users: make(map[string]map[*session]struct{}), due: make(map[*session]struct{}), left: make(map[*upstream]struct{}), now: time.Now()}
	l.Loop, _ = poll.NewLoop()
	link := new(deaf)
	s := &session{state: state{IP: netip.MustParseAddr("127.0.0.1"), Since: l.now, ID: 1 << 24, Phase: p}, srv: srv, loop: l, link: link}
	s.Name, s.Typed, s.LoginID = name{"alice", ".rig"}, "alice.rig", []byte("2")
	s.ExtraNonce1, s.ExtraNonce2Size = []byte("01000080"), 4
	s.to, s.Chain, s.spoken = srv.chains[0], "btc", true
	s.now = &upstream{session: s, loop: l, chain: srv.chains[0], server: srv.chains[0].servers[0], link: new(deaf), cancel: func() {}, began: l.now}
	s.now.next, s.now.ext.Mark = firstNumber, '1'
	s.now.questions = map[uint64]question{16: {id: []byte(`"q"`), kind: askedSubmit, at: l.now}}
	l.Close()
	return s, link
}
