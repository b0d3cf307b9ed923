// Package slparser makes statistics of the share log: it reads the day files while they are written, keeps what each
// worker, each user and the pool did by hour and day, and writes what changed to the database and answers over HTTP.
// All sums are exact; what it writes are absolute values, so that reading a file again changes nothing.
package slparser

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/bitcoin"
	"btcpool/internal/config"
	"btcpool/internal/httpapi"
	"btcpool/internal/service"
	"btcpool/internal/sharefile"
)

const graceHTTP = time.Second // what answers under way get at the end

// Service is one of slparser's modes: see Config.Day and Config.Print.
type Service struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	rules   rules
	closing service.Closing
	ln      net.Listener // nil in modes that exit
	started time.Time

	terminal io.Writer // where progress is shown; nil: nowhere

	requests, bytes atomic.Uint64 // answered over HTTP
	behind          atomic.Bool   // files have more than was read

	reading, writing *service.Fault // what goes wrong with the files and with the database

	mu      sync.Mutex
	files   map[sharefile.Day]*dayFile // in memory
	counted map[sharefile.Day]counted  // those that are not, as far as the database or this process knows them
	asked   bool                       // the database told what it knows
	newest  int64                      // time of the newest share
}

// New listens for HTTP requests, in the mode that serves.
func New(cfg Config, deps service.Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Print.Format = cmp.Or(cfg.Print.Format, "text")
	network, err := bitcoin.NetworkByName(cfg.Network)
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg:      cfg,
		log:      deps.Log,
		metrics:  newMetrics(deps.Metrics),
		rules:    cfg.rules(network),
		started:  time.Now(),
		terminal: terminalOrNil(os.Stderr),
		files:    make(map[sharefile.Day]*dayFile),
		counted:  make(map[sharefile.Day]counted),
		reading:  service.NewFault(deps.Log, zerolog.ErrorLevel, "share log cannot be read on: will try again and again", "share log is read again"),
		writing:  service.NewFault(deps.Log, zerolog.WarnLevel, "database does not get what changed: will try again and again", "database gets what changed again"),
	}
	s.behind.Store(true)
	s.writing.Await(errors.New("waiting for the database"))
	if cfg.Day != 0 {
		return s, nil
	}
	if s.ln, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, &config.ListenError{Key: "listen", Addr: cfg.Listen, Err: err}
	}
	s.closing.Add(s.ln.Close)
	return s, nil
}

// Close ends a service that has not run. It does nothing to one that has.
func (s *Service) Close() error { return s.closing.Close() }

// Addr is where HTTP requests are answered; nil in modes that exit.
func (s *Service) Addr() net.Addr {
	if s.ln == nil {
		return nil
	}
	return s.ln.Addr()
}

// Ready tells what keeps the statistics from being up to date.
func (s *Service) Ready() error {
	if s.cfg.Day != 0 {
		return nil
	}
	var behind error
	if s.behind.Load() {
		behind = errors.New("reading the share log up to its end")
	}
	return errors.Join(behind, s.reading.Err(), s.writing.Err())
}

// Run serves until ctx ends, or does what Config.Day asks for.
func (s *Service) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.Close()) }()
	switch {
	case s.cfg.Print.asked():
		return s.print(ctx, os.Stdout)
	case s.cfg.Day != 0:
		return s.compute(ctx)
	}
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return httpapi.Serve(inner, s.ln, s.handler(), graceHTTP) })
	g.Go(func() error { return s.follow(inner) })
	g.Go(func() error { return s.keep(inner) })
	return g.Wait()
}
