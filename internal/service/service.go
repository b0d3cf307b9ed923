// Package service is the frame round every service: flags, configuration, logger, metrics, health, signals and systemd.
// It knows nothing of mining.
//
// Configuration comes from defaults in code, then the TOML file, then the environment (BTCPOOL_…), then flags; the last
// one wins.
package service

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"btcpool/internal/config"
	"btcpool/internal/httpapi"
	"btcpool/internal/retry"
	"btcpool/internal/telemetry"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
)

// Exit codes of Main.
const (
	exitStopped = 0 // stopped by a signal, or its work is done
	exitFailed  = 1 // could not start, failed, or did not drain in time
	exitUsage   = 2 // wrong flags or configuration
)

// Deps is what the frame gives to a service.
type Deps = telemetry.Deps

// A Runner is a service that has been built.
type Runner interface {
	// Run works until ctx ends, then drains and returns nil; an error means that work became impossible.
	Run(ctx context.Context) error
	// Ready returns nil when work is possible, else what is missing. It is called often and from any goroutine, and
	// must not block.
	Ready() error
	// Close ends a service that has not run. It does nothing to one that has, and nothing when it is called again.
	Close() error
}

// A Flagger is a Config (by its pointer) with flags of its own besides the frame's. Flags binds them to the fields,
// whose values are the defaults; what is given on the command line wins over file and environment.
type Flagger interface {
	Flags(*flag.FlagSet)
}

// Main runs the service called name and returns the exit code of its process: 0 stopped, 1 failed, 2 wrong usage or
// configuration. It writes to stderr only.
func Main[C Config, S Runner](name string, args []string, stderr io.Writer, defaults C, build func(C, Deps) (S, error)) int {
	var (
		file, level    string
		check, version bool
	)
	cfg := defaults
	parse := func() (*flag.FlagSet, error) {
		flags := flag.NewFlagSet(name, flag.ContinueOnError)
		flags.SetOutput(stderr)
		flags.StringVar(&file, "config", "", "read this TOML `file`")
		flags.BoolVar(&check, "check", false, "check the configuration and exit")
		flags.BoolVar(&version, "version", false, "print the version and exit")
		flags.StringVar(&level, "log-level", "", "`level` instead of the configured one: trace, debug, info, warn, error")
		if f, ok := any(&cfg).(Flagger); ok {
			f.Flags(flags)
		}
		return flags, flags.Parse(args)
	}
	switch flags, err := parse(); {
	case errors.Is(err, flag.ErrHelp):
		return exitStopped
	case err != nil:
		return exitUsage
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "%s: unexpected argument %q\n", name, flags.Arg(0))
		return exitUsage
	case version:
		fmt.Fprintln(stderr, name, Version(), runtime.Version())
		return exitStopped
	}

	// The file and the environment go over the defaults, then the flags once more over both.
	cfg = defaults
	if err := Load(file, &cfg); err != nil {
		complain(stderr, name, err)
		return exitUsage
	}
	for old, now := range outdatedEnv(cfg) {
		fmt.Fprintf(stderr, "%s: %s has a new name, %s: the old one works for now\n", name, EnvPrefix+old, EnvPrefix+now)
	}
	if _, err := parse(); err != nil {
		return exitUsage
	}
	common := cfg.Base()
	if level != "" {
		common.Log.Level = level
	}
	if err := errors.Join(common.validate(), cfg.Validate()); err != nil {
		complain(stderr, name, err)
		return exitUsage
	}
	if check {
		fmt.Fprintf(stderr, "%s: configuration ok\n", name)
		return exitStopped
	}

	// From here on a signal is noticed, however long building takes.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)

	log, err := NewLogger(stderr, common.Log)
	if err != nil {
		complain(stderr, name, err)
		return exitUsage
	}
	registry := newRegistry()
	deps := Deps{Log: log, Metrics: registry}.For(name)

	var admin net.Listener
	if common.Admin != "" {
		if admin, err = net.Listen("tcp", common.Admin); err != nil {
			deps.Log.Error().Err(&config.ListenError{Key: "admin", Addr: common.Admin, Err: err}).Msg("cannot listen for admin requests")
			return exitFailed
		}
		defer func() { _ = admin.Close() }() // httpapi.Serve has closed it, if it ran
	}
	svc, err := build(cfg, deps)
	if err != nil {
		deps.Log.Error().Err(err).Msg("cannot start")
		return exitFailed
	}
	p := process{log: deps.Log, svc: svc, stopTimeout: common.StopGrace()}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "btcpool_ready",
		Help: "1 while work is possible; /readyz says what is missing.",
	}, func() float64 {
		if p.ready() != nil {
			return 0
		}
		return 1
	}))
	if admin != nil {
		deps.Log.Info().Stringer("addr", admin.Addr()).Msg("admin listening")
		stop := p.background(func(ctx context.Context) {
			if err := httpapi.Serve(ctx, admin, AdminHandler(registry, p.ready), time.Second); err != nil {
				deps.Log.Error().Err(err).Msg("admin requests are no longer answered")
			}
		})
		defer stop()
	}
	return p.run(signals)
}

// complain prints each line of err behind the service's name.
func complain(w io.Writer, name string, err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "%s: %s\n", name, strings.TrimRight(line, "\n"))
	}
}

// Version returns the version of the running program as the Go toolchain stamped it, or "devel".
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "btcpool_build_info",
		Help:        "Always 1; the labels say what is running.",
		ConstLabels: prometheus.Labels{"version": Version(), "go": runtime.Version()},
	})
	build.Set(1)
	clock := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "btcpool_clock_timestamp_seconds",
		Help: "What the clock of this machine says: to be compared with Prometheus' own.",
	}, func() float64 { return float64(time.Now().UnixMilli()) / 1000 })
	reg.MustRegister(build, clock,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return reg
}

// process is a service between its start and its end.
type process struct {
	log         zerolog.Logger
	svc         Runner
	stopTimeout time.Duration
	stopping    atomic.Bool
}

var errStopping = errors.New("stopping")

func (p *process) ready() error {
	if p.stopping.Load() {
		return errStopping
	}
	return p.svc.Ready()
}

// background runs f until the returned function is called, which waits for it.
func (p *process) background(f func(ctx context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (p *process) run(signals <-chan os.Signal) int {
	p.log.Info().Str("version", Version()).Msg("starting")
	defer p.background(p.tellSystemd)()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.svc.Run(ctx) }()

	select {
	case err := <-done:
		return p.exit(err)
	case sig := <-signals:
		p.log.Info().Stringer("signal", sig).Stringer("stop_timeout", p.stopTimeout).Msg("stopping")
	}
	p.stopping.Store(true)
	p.notify(daemon.SdNotifyStopping)
	cancel()
	select {
	case err := <-done:
		return p.exit(err)
	case sig := <-signals:
		p.log.Error().Stringer("signal", sig).Msg("second signal, not drained")
	case <-time.After(p.stopTimeout):
		p.log.Error().Stringer("stop_timeout", p.stopTimeout).Msg("not drained in time")
	}
	return exitFailed
}

func (p *process) exit(err error) int {
	p.stopping.Store(true)
	if err != nil {
		p.log.Error().Err(err).Msg("failed")
		return exitFailed
	}
	p.log.Info().Msg("stopped")
	return exitStopped
}

// tellSystemd says READY when the service is, and then feeds the watchdog. It asks the service each time, so that one
// whose locks hang is restarted.
func (p *process) tellSystemd(ctx context.Context) {
	const poll = 100 * time.Millisecond
	interval := poll
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		p.log.Warn().Err(err).Msg("systemd watchdog not fed")
	}
	var missing string
	for isReady := false; ; {
		if watchdog > 0 {
			p.notify(daemon.SdNotifyWatchdog)
		}
		switch err := p.ready(); {
		case err == nil && !isReady:
			isReady = true
			p.log.Info().Msg("ready")
			p.notify(daemon.SdNotifyReady)
			interval = max(watchdog/2, poll)
		case err != nil && !isReady && err.Error() != missing:
			missing = err.Error()
			p.log.Info().Str("missing", missing).Msg("not ready yet")
		}
		if !retry.Sleep(ctx, interval) || isReady && watchdog == 0 {
			return
		}
	}
}

func (p *process) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		p.log.Warn().Err(err).Str("state", state).Msg("systemd not notified")
	}
}
