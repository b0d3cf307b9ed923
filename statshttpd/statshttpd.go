// Package statshttpd shows what the pool is doing: it counts the last hour of shares in memory and gives them out as a
// dashboard, a JSON API and the table mining_workers. Histories it reads from tables: hours and days are slparser's,
// minutes are written here.
//
// All figures of the last hour come from the share topic: a start goes on behind the shares of the checkpoint, or
// counts the last hour again; so a restart loses nothing and none of them depends on the database being there. Each
// share counts once however often it is delivered.
//
// The API under /api/v1 is described in openapi.yaml. btcpool's own addresses (/, /worker_status, /flush_db_time) are
// answered in its format; at / that goes for whoever does not accept text/html, as programs do: browsers get the
// dashboard. /pool_status is the same answer for anybody.
package statshttpd

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/httpapi"
	"btcpool/internal/notify"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

//go:embed web
var builtin embed.FS

//go:embed openapi.yaml
var openAPI []byte

//go:embed shapes.yaml
var shapesAPI []byte

// Service is a running statshttpd.
type Service struct {
	cfg      Config
	log      zerolog.Logger
	metrics  *metrics
	closing  service.Closing
	places   []Place // where miners connect
	bus      *bus.Client
	listener net.Listener
	web      fs.FS
	packs    filePacks         // of web's files
	files    map[string][]byte // files of the dashboard that follow from the configuration
	logo     *logo             // nil: the built-in one
	now      func() time.Time
	started  time.Time

	board *board
	dedup share.Dedup
	read  map[int]bus.Mark // of the last share read, by partition: of whoever counts shares
	hub   *hub

	nompListeners atomic.Int64

	checkpointRoom int // bytes that the next one will take, about: of whoever counts shares

	teller *notify.Notifier // nil: nobody is told anything
	redis  *redisOut        // nil: there is none

	workerOrders *orders[listed]
	userOrders   *orders[listedUser]
	poolCounts   *orders[counts]
	agentOrders  *orders[publicPoolAgent]
	groupOrders  *orders[group] // by user
	replayed     atomic.Bool    // the last hour of shares is counted

	countedSince atomic.Int64 // unix time from which on all shares are counted
	lastCut      time.Time    // the hour whose minutes were cut last: keep's
	cuts         []hourCut    // that are to be written: keep's

	network       atomic.Pointer[network]     // nil before the first job
	db            atomic.Pointer[store.Store] // nil while the database was never there
	stats         atomic.Pointer[store.Store] // nil before both databases were there, see statistics
	ledger        atomic.Pointer[ledger]      // nil before the first look into the database
	looking       *service.Fault              // at the ledger
	writing       *service.Fault              // workers to the database
	beating       *service.Fault              // the file of the last flush
	checkpointing *service.Fault              // what was counted
	minutes       *service.Fault              // to the database
	hours         *service.Fault              // of the tables
	kafka         *service.Fault              // Kafka does not answer
	heard         atomic.Int64                // unix time of its last answer, 0 before
	flushed       atomic.Int64                // unix time of the last complete flush, 0 before
	requests      atomic.Uint64
	sent          atomic.Uint64 // bytes of answers
}

// New validates cfg and listens; nothing is answered before Run.
func New(cfg Config, deps service.Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{
		cfg:   cfg,
		log:   deps.Log,
		board: newBoard(cfg.MaxWorkers),
		read:  make(map[int]bus.Mark),

		hub:          newHub(),
		workerOrders: newOrders[listed](),
		userOrders:   newOrders[listedUser](),
		poolCounts:   newOrders[counts](),
		agentOrders:  newOrders[publicPoolAgent](),
		groupOrders:  newOrders[group](),

		looking:       service.NewFault(deps.Log, zerolog.WarnLevel, "blocks not read: showing what was known", "blocks are read again"),
		beating:       service.NewFault(deps.Log, zerolog.WarnLevel, "file_last_flush_time not written", "file_last_flush_time is written again"),
		checkpointing: service.NewFault(deps.Log, zerolog.WarnLevel, "checkpoint not written: will try again, a start would count an hour of shares", "the checkpoint is written again"),
		minutes:       service.NewFault(deps.Log, zerolog.WarnLevel, "minutes not written: will try again", "minutes are written again"),
		hours:         service.NewFault(deps.Log, zerolog.WarnLevel, "hours not read: will try again, the rate of a day may not be known until then", "hours are read again"),
		writing:       service.NewFault(deps.Log, zerolog.WarnLevel, "workers not written: will try again and again", "workers are written again"),
		kafka:         service.NewFault(deps.Log, zerolog.WarnLevel, "Kafka does not answer: showing what was known", "Kafka answers again"),
		now:           time.Now,
	}
	s.board.acceptStale = cfg.AcceptStale
	s.places, _ = ParsePlaces(cfg.StratumURL) // is valid
	s.started = s.now()
	s.metrics = newMetrics(deps.Metrics, s.board)
	if err := s.open(deps); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Service) open(deps service.Deps) (err error) {
	if s.web, err = fs.Sub(builtin, "web"); err != nil {
		return err
	}
	if s.cfg.WebDir != "" {
		s.web = os.DirFS(s.cfg.WebDir)
	}
	if _, err := fs.Stat(s.web, "index.html"); err != nil {
		return fmt.Errorf("web_dir = %q: %w", s.cfg.WebDir, err)
	}
	if s.logo, err = s.cfg.Dashboard.readLogo(); err != nil {
		return err
	}
	s.files = s.cfg.Dashboard.files()
	if s.cfg.NotifyTest {
		return nil
	}
	if s.teller, err = notify.New(s.cfg.Notify, deps); err != nil {
		return err
	}
	s.closing.Add(s.teller.Close)
	if s.redis, err = newRedisOut(s.cfg, s.metrics, s.log); err != nil {
		return err
	}
	if s.redis != nil {
		s.closing.Add(s.redis.client.Close)
	}
	if s.bus, err = bus.New(s.cfg.Kafka, deps); err != nil {
		return err
	}
	s.closing.Add(s.bus.Close)
	s.closing.Add(s.workerOrders.wait)
	s.closing.Add(s.userOrders.wait)
	s.closing.Add(s.poolCounts.wait)
	s.closing.Add(s.agentOrders.wait)
	s.closing.Add(s.groupOrders.wait)
	if s.listener, err = net.Listen("tcp", s.cfg.Listen); err != nil {
		return &config.ListenError{Key: "listen", Addr: s.cfg.Listen, Err: err}
	}
	s.closing.Add(s.listener.Close)
	return nil
}

// Close ends a service that has not run. It does nothing to one that has.
func (s *Service) Close() error { return s.closing.Close() }

// Addr is where the dashboard and the API are.
func (s *Service) Addr() net.Addr { return s.listener.Addr() }

// Ready tells whether the figures are complete, and written.
func (s *Service) Ready() error {
	var errs []error
	if !s.replayed.Load() {
		errs = append(errs, fmt.Errorf("the last hour of topic %s is not read yet", s.cfg.Kafka.Topics.Share))
	}
	if s.db.Load() == nil {
		errs = append(errs, errors.New("the database is not open yet"))
	}
	if err := s.writing.Err(); err != nil {
		errs = append(errs, fmt.Errorf("workers not written: %w", err))
	}
	if err := s.minutes.Err(); err != nil {
		errs = append(errs, fmt.Errorf("minutes not written: %w", err))
	}
	if err := s.teller.Ready(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Run answers requests, reads the topics and keeps the database up to date until ctx ends; what is counted then is
// written once more.
func (s *Service) Run(ctx context.Context) error {
	if s.cfg.NotifyTest {
		return errors.Join(notify.Test(ctx, s.cfg.Notify, s.log), s.Close())
	}
	const grace = 5 * time.Second
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		s.log.Info().Stringer("addr", s.listener.Addr()).Msg("dashboard listening")
		return httpapi.ServeUpTo(ctx, s.cfg.MaxConnections, s.metrics.crowdedOut.Inc, s.listener, s.Handler(), grace)
	})
	g.Go(func() error {
		s.turnEvents(ctx)
		return nil
	})
	g.Go(func() error { return s.consume(ctx) })
	g.Go(func() error { return s.keep(ctx) })
	g.Go(func() error {
		s.listen(ctx)
		return nil
	})
	g.Go(func() error {
		s.tell(ctx)
		return nil
	})
	g.Go(func() error {
		s.writeRedis(ctx)
		return nil
	})
	g.Go(func() error { return s.teller.Run(ctx) })
	return errors.Join(g.Wait(), s.Close())
}
