package agentproxy

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"btcpool/internal/config"
	"btcpool/internal/poll"
)

// ports are where miners connect.
type ports struct {
	mu      sync.Mutex
	all     []*port
	serving bool // connections are accepted
	closed  bool // for good
}

// port is a listener, from when it is opened until it is closed.
type port struct {
	*poll.Listener
	key      Listener
	closed   chan struct{}
	accepter sync.WaitGroup
}

// name is what the listener's socket is called among processes.
func (l Listener) name() string { return "listen " + l.Listen }

func (p *port) close() {
	close(p.closed)
	_ = p.Close()
	p.accepter.Wait()
}

// setPorts has the proxy listen where cfg says, and nowhere else. If that cannot be, it changes nothing.
func (s *Service) setPorts(cfg Config) (err error) {
	s.ports.mu.Lock()
	defer s.ports.mu.Unlock()
	if s.ports.closed {
		return nil
	}
	before := s.ports.all
	obsolete := slices.Clone(before)
	kept := make([]*port, len(cfg.Listeners))
	for i, key := range cfg.Listeners {
		if at := slices.IndexFunc(obsolete, func(p *port) bool { return p.key == key }); at >= 0 {
			kept[i] = obsolete[at]
			obsolete = slices.Delete(obsolete, at, at+1)
		}
	}
	for _, p := range obsolete { // first, since a new one may be at the same address
		p.close()
	}
	var opened []*port
	defer func() {
		if err == nil {
			return
		}
		for _, p := range opened {
			p.close()
		}
		for _, p := range obsolete {
			if again := p.Reopen(); again != nil {
				err = errors.Join(err, again)
				before = slices.DeleteFunc(slices.Clone(before), func(q *port) bool { return p == q })
				continue
			}
			p.closed = make(chan struct{})
			s.accept(p)
		}
		s.ports.all = before
	}()
	for i, key := range cfg.Listeners {
		if kept[i] == nil {
			if kept[i], err = s.listen(key, cfg.WriteTimeout.Std()); err != nil {
				return err
			}
			opened = append(opened, kept[i])
		}
	}
	s.ports.all = kept
	for _, p := range opened {
		s.log.Info().Stringer("addr", p.Addr()).Bool("tls", p.key.TLSCertFile != "").Msg("listening for miners")
		s.accept(p)
	}
	for _, p := range obsolete {
		s.log.Info().Stringer("addr", p.Addr()).Msg("no longer listening for miners")
	}
	return nil
}

func (s *Service) listen(key Listener, writeTimeout time.Duration) (*port, error) {
	l, err := poll.Listen(poll.Config{
		Addr:         key.Listen,
		Inherited:    s.before.Listener(key.name()),
		CertFile:     key.TLSCertFile,
		KeyFile:      key.TLSKeyFile,
		Log:          s.log,
		Go:           s.goroutines.Go,
		WriteTimeout: writeTimeout,
	})
	if err != nil {
		return nil, config.Listening("listen", key.Listen, err)
	}
	return &port{Listener: l, key: key, closed: make(chan struct{})}, nil
}

// servePorts accepts connections from now on.
func (s *Service) servePorts() {
	s.ports.mu.Lock()
	defer s.ports.mu.Unlock()
	s.ports.serving = true
	for _, p := range s.ports.all {
		s.accept(p)
	}
}

// pausePorts accepts nothing more until resume is called, or closes all ports for good then.
func (s *Service) pausePorts() (resume func(passed bool), err error) {
	s.ports.mu.Lock()
	for _, p := range s.ports.all {
		err = errors.Join(err, p.Pause())
	}
	for _, p := range s.ports.all {
		p.accepter.Wait()
	}
	resume = func(passed bool) {
		defer s.ports.mu.Unlock()
		s.ports.closed = s.ports.closed || passed
		for _, p := range s.ports.all {
			switch {
			case passed:
				p.close()
			case s.ports.closed:
			default:
				if err := p.Resume(); err != nil {
					s.log.Error().Err(err).Stringer("addr", p.Addr()).Msg("no longer listening for miners")
				}
				s.accept(p)
			}
		}
	}
	if err != nil {
		resume(false)
		return nil, err
	}
	return resume, nil
}

// closePorts closes all ports for good.
func (s *Service) closePorts() {
	s.ports.mu.Lock()
	defer s.ports.mu.Unlock()
	if s.ports.closed {
		return
	}
	s.ports.closed = true
	for _, p := range s.ports.all {
		p.close()
	}
}

// accept takes connections until the port is closed, if it is time for that.
func (s *Service) accept(p *port) {
	if !s.ports.serving {
		return
	}
	p.accepter.Go(func() {
		for {
			conn, ip, err := p.Accept()
			switch {
			case err == nil:
				s.welcome(conn, ip)
				continue
			case errors.Is(err, net.ErrClosed), errors.Is(err, poll.ErrPaused):
				return
			}
			// Out of descriptors, most likely: that passes.
			s.metrics.refused.WithLabelValues("accept").Inc()
			s.log.Error().Err(err).Msg("connection not accepted: raise the limit of open files")
			select {
			case <-p.closed:
				return
			case <-time.After(time.Second):
			}
		}
	})
}

func (s *Service) welcome(conn poll.Link, ip netip.Addr) {
	if !s.loop.Post(func() { s.add(conn, ip) }) {
		conn.Close()
	}
}
