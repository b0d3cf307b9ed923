package agentproxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"btcpool/internal/poll"
	"btcpool/internal/stratum"
)

// relay carries the conversation of another farm proxy to a pool and back, on a line of its own: what that one tells
// its machines of the coinbase leaves no room for another proxy's numbers in it. Account, miners and verdicts are its
// own affair. It belongs to the loop, but for what reach does.
type relay struct {
	agent  *miner
	cancel context.CancelFunc
	pool   string    // its address
	line   poll.Link // nil: not reached yet
	outbox poll.Outbox
	early  []byte // what the agent has said before that
}

// maxRelays bounds them. A proxy whose pool is itself would have one for each that it has.
const maxRelays = 200

var (
	errNoAgentsPool  = errors.New("no pool that speaks the agents' protocol can be reached for another proxy")
	errTooManyAgents = errors.New("too many other proxies")
	errPoolEnded     = errors.New("the pool has ended the conversation with another proxy")
	errPoolBack      = errors.New("a preferred pool is back for another proxy")
)

// agentPrefix begins the user agents of farm proxies.
const agentPrefix = "btccom-agent/"

// isAgent reports whether a conversation that begins so is that of a farm proxy.
func isAgent(line []byte) bool {
	req, _, err := stratum.ParseRequest(line)
	if err != nil {
		return false
	}
	switch string(req.Method) {
	case "agent.get_capabilities":
		return true
	case "mining.subscribe":
		software, _, _ := stratum.ParseSubscribe(req.Params)
		return strings.HasPrefix(software, agentPrefix)
	}
	return false
}

// beginRelay has m, which is a farm proxy, talk to a pool itself.
func (s *Service) beginRelay(m *miner) {
	if s.relays >= maxRelays {
		m.finish(errTooManyAgents)
		return
	}
	s.relays++
	s.metrics.relays.Inc()
	m.relay = &relay{agent: m}
	m.relay.start()
}

// start has a pool looked for.
func (r *relay) start() {
	s := r.agent.svc
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	dialer, pools := s.dialer, s.cfg.Pools
	s.goroutines.Go(func() { r.reach(ctx, dialer, pools) })
}

// reach finds a pool that speaks the agents' protocol.
func (r *relay) reach(ctx context.Context, dialer *dialer, pools []Pool) {
	s := r.agent.svc
	why := errNoAgentsPool
	for _, p := range pools {
		if p.Protocol == ProtocolStratum {
			continue
		}
		p.Protocol = ProtocolAgent
		up, err := dialer.dial(ctx, p)
		if err != nil {
			why = fmt.Errorf("%w: %s: %w", why, p.Addr, err)
			continue
		}
		if !s.loop.Post(func() { r.begin(p.Addr, up) }) {
			_ = up.Close()
		}
		return
	}
	s.loop.Post(func() { r.end(why) })
}

func (r *relay) begin(pool string, up upstream) {
	s := r.agent.svc
	if r.agent.pos < 0 {
		_ = up.Close()
		return
	}
	line, err := poll.Adopt(up.Conn, s.goroutines.Go, s.cfg.ReadTimeout.Std())
	if err != nil {
		r.end(err)
		return
	}
	r.pool, r.line = pool, line
	if err := r.line.Attach(s.loop, r); err != nil {
		r.end(err)
		return
	}
	early := r.early
	r.early = nil
	r.forward(early)
}

// forward passes on what the agent says.
func (r *relay) forward(b []byte) {
	s := r.agent.svc
	if r.line == nil {
		if r.early = append(r.early, b...); len(r.early) > maxPoolLine {
			r.end(poll.ErrSlow)
		}
		return
	}
	s.metrics.bytes.WithLabelValues("out").Add(float64(len(b)))
	if err := r.outbox.Send(r.line, b, maxUnsent, s.now.Add(s.cfg.ReadTimeout.Std())); err != nil {
		r.end(err)
		return
	}
	r.line.Want(true, r.outbox.Len() > 0)
}

// Serve goes on with the line to the pool.
func (r *relay) Serve(ready poll.Readiness) {
	m := r.agent
	s := m.svc
	defer m.settle()
	if ready&poll.Broken != 0 {
		m.finish(errPoolEnded)
		return
	}
	if ready&poll.CanWrite != 0 {
		if err := r.outbox.Flush(r.line, s.now.Add(s.cfg.ReadTimeout.Std())); err != nil {
			m.finish(errPoolEnded)
			return
		}
	}
	if ready&poll.CanRead != 0 {
		n, err := r.line.Read(s.in[:])
		s.metrics.bytes.WithLabelValues("in").Add(float64(n))
		m.send(s.in[:n])
		if err != nil {
			m.finish(errPoolEnded)
			return
		}
	}
	r.line.Want(!m.closing, r.outbox.Len() > 0)
}

// end ends the conversation: the agent will begin another.
func (r *relay) end(why error) {
	r.agent.finish(why)
	r.agent.settle()
}

// check sees to what is due.
func (r *relay) check() error {
	s := r.agent.svc
	if r.line == nil { // a pool is still looked for
		return nil
	}
	if r.outbox.Late(s.now) {
		return errPoolEnded
	}
	for _, a := range s.accounts {
		for l := range a.links {
			if l.up() && l.agent && s.preference(l.addr()) < s.preference(r.pool) {
				return errPoolBack
			}
		}
	}
	return nil
}

// preference returns the place of a pool among those of the configuration, the last of one that is not there any more.
func (s *Service) preference(addr string) int {
	i := slices.IndexFunc(s.cfg.Pools, func(p Pool) bool { return p.Addr == addr })
	if i < 0 {
		return len(s.cfg.Pools)
	}
	return i
}

// close is called when the agent's connection is over.
func (r *relay) close() {
	s := r.agent.svc
	s.relays--
	s.metrics.relays.Dec()
	r.cancel()
	if r.line != nil {
		r.line.Close()
	}
}
