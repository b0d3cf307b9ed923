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
	"btcpool/internal/upgrade"

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
	return Program[C, S]{
		Name:     name,
		Stderr:   stderr,
		Defaults: func() (C, []string, error) { return defaults, nil, nil },
		Build:    build,
	}.Main(args)
}

// Program is a service as a process of its own.
type Program[C Config, S Runner] struct {
	Name   string
	Stderr io.Writer
	// Defaults returns what file, environment and flags go over, with warnings. It is called each time that the
	// configuration is read.
	Defaults func() (cfg C, warnings []string, err error)
	Build    func(C, Deps) (S, error)
	// LogFile is where the log goes instead of Stderr, or, with AlsoStderr, besides; "": there is none.
	LogFile    string
	AlsoStderr bool
}

// options are the frame's own flags.
type options struct {
	file, level            string
	check, health, version bool
	stay                   bool
}

// flags reads args; those of the service itself go over cfg.
func (p Program[C, S]) flags(args []string, cfg *C) (o options, rest []string, err error) {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(p.Stderr)
	flags.StringVar(&o.file, "config", "", "read this TOML `file`")
	flags.BoolVar(&o.check, "check", false, "check the configuration and exit")
	flags.BoolVar(&o.health, "health", false, "ask the service that runs by this configuration whether it is ready, and exit: 0 it is, 1 it is not")
	flags.BoolVar(&o.version, "version", false, "print the version and exit")
	if _, upgrades := any(*new(S)).(Upgrader); upgrades {
		flags.BoolVar(&o.stay, "stay", false, "run the service in a process of its own and stay before it, for supervisors that watch one process, while others follow it on SIGUSR2")
	}
	flags.StringVar(&o.level, "log-level", "", "`level` instead of the configured one: trace, debug, info, warn, error")
	if f, ok := any(cfg).(Flagger); ok {
		f.Flags(flags)
	}
	err = flags.Parse(args)
	return o, flags.Args(), err
}

// configure reads the configuration: the file and the environment go over the defaults, then the flags over both. Log is
// what is to be logged by it.
func (p Program[C, S]) configure(args []string, o options) (cfg C, log Log, warnings []string, err error) {
	if cfg, warnings, err = p.Defaults(); err != nil {
		return cfg, log, nil, err
	}
	if err := Load(o.file, &cfg); err != nil {
		return cfg, log, nil, err
	}
	for old, now := range outdatedEnv(cfg) {
		warnings = append(warnings, fmt.Sprintf("%s has a new name, %s: the old one works for now", EnvPrefix+old, EnvPrefix+now))
	}
	if _, _, err := p.flags(args, &cfg); err != nil {
		return cfg, log, nil, err
	}
	common := cfg.Base()
	if o.level != "" {
		common.Log.Level = o.level
	}
	return cfg, common.Log, warnings, errors.Join(common.validate(), cfg.Validate())
}

// Main runs the program and returns its exit code, as the function Main does.
func (p Program[C, S]) Main(args []string) int {
	var defaults C
	if cfg, _, err := p.Defaults(); err == nil {
		defaults = cfg
	}
	o, rest, err := p.flags(args, &defaults)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitStopped
	case err != nil:
		return exitUsage
	case len(rest) > 0:
		fmt.Fprintf(p.Stderr, "%s: unexpected argument %q\n", p.Name, rest[0])
		return exitUsage
	case o.version:
		fmt.Fprintln(p.Stderr, p.Name, Version(), runtime.Version())
		return exitStopped
	}
	cfg, logging, warnings, err := p.configure(args, o)
	for _, w := range warnings {
		fmt.Fprintf(p.Stderr, "%s: %s\n", p.Name, w)
	}
	if err != nil {
		complain(p.Stderr, p.Name, err)
		return exitUsage
	}
	if o.health {
		if err := Health(context.Background(), cfg.Base().Admin); err != nil {
			complain(p.Stderr, p.Name, err)
			return exitFailed
		}
		return exitStopped
	}
	if o.stay && !o.check && !stayed() {
		code, err := stay()
		if err != nil {
			complain(p.Stderr, p.Name, err)
			return exitFailed
		}
		return code
	}
	out := p.Stderr
	var file *LogFile
	if p.LogFile != "" {
		if file, err = OpenLogFile(p.LogFile); err != nil {
			complain(p.Stderr, p.Name, err)
			return exitUsage
		}
		defer func() { _ = file.Close() }()
		if out = file; p.AlsoStderr {
			out = io.MultiWriter(p.Stderr, file)
		}
	}
	if o.check {
		fmt.Fprintf(p.Stderr, "%s: configuration ok\n", p.Name)
		return exitStopped
	}

	// From here on a signal is noticed, however long building takes.
	signals, stop := notifyStops()
	defer stop()
	hangups := make(chan os.Signal, 1)
	_, reloads := any(*new(S)).(Reloader[C])
	if reloads {
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
	}

	log, err := NewLogger(out, logging)
	var lowest threshold
	if reloads {
		lowest.set(logging)
		log = log.Level(zerolog.TraceLevel).Hook(&lowest)
	}
	if err != nil {
		complain(p.Stderr, p.Name, err)
		return exitUsage
	}
	registry := newRegistry()
	before, err := upgrade.Inherit()
	if err != nil {
		log.Error().Err(err).Msg("cannot go on for another process")
		return exitFailed
	}
	deps := Deps{Log: log, Metrics: registry, Predecessor: before}.For(p.Name)

	common := cfg.Base()
	var admin net.Listener
	if common.Admin != "" {
		if admin, err = listenAdmin(common.Admin, before); err != nil {
			deps.Log.Error().Err(&config.ListenError{Key: "admin", Addr: common.Admin, Err: err}).Msg("cannot listen for admin requests")
			return exitFailed
		}
		defer func() { _ = admin.Close() }() // httpapi.Serve has closed it, if it ran
	}
	svc, err := p.Build(cfg, deps)
	if err != nil {
		deps.Log.Error().Err(err).Msg("cannot start")
		return exitFailed
	}
	proc := process{log: deps.Log, svc: svc, stopTimeout: common.StopGrace()}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "btcpool_ready",
		Help: "1 while work is possible; /readyz says what is missing.",
	}, func() float64 {
		if proc.ready() != nil {
			return 0
		}
		return 1
	}))
	if to, ok := any(svc).(Upgrader); ok {
		u := newUpgrades(deps.Log, registry, to, adminName(common.Admin), admin)
		proc.upgrade = u.do
		upgrades := make(chan os.Signal, 1)
		defer notifyUpgrades(upgrades)()
		proc.upgrades = upgrades
	}
	proc.before = before
	if admin != nil {
		deps.Log.Info().Stringer("addr", admin.Addr()).Msg("admin listening")
		stop := proc.background(func(ctx context.Context) {
			if !before.Wait(ctx) {
				return
			}
			if err := httpapi.Serve(ctx, admin, AdminHandler(registry, proc.ready), time.Second); err != nil {
				deps.Log.Error().Err(err).Msg("admin requests are no longer answered")
			}
		})
		proc.stopAdmin = stop
		defer stop()
	}
	if to, ok := any(svc).(Reloader[C]); ok {
		r := reload[C]{
			log:     deps.Log,
			metrics: newReloadMetrics(registry),
			file:    file,
			lowest:  &lowest,
			now:     cfg,
			read:    func() (C, Log, []string, error) { return p.configure(args, o) },
			to:      to,
		}
		proc.reload = r.do
	}
	return proc.run(signals, hangups)
}

// complain prints each line of err behind the service's name.
func complain(w io.Writer, name string, err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "%s: %s\n", name, strings.TrimRight(line, "\n"))
	}
}

// version is set by the linker when a release is built.
var version string

// Version returns the version of the running program as it was stamped, or "devel".
func Version() string {
	if version != "" {
		return version
	}
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
	reload      func(context.Context) // nil: nobody asks for it
	stopping    atomic.Bool

	before    *upgrade.Predecessor // nil: none
	upgrades  <-chan os.Signal     // nil: there are none
	upgrade   func(ctx context.Context, notify func(string), failed func()) error
	stopAdmin func() // nil: nothing to stop
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

func (p *process) run(signals, hangups <-chan os.Signal) int {
	p.log.Info().Str("version", Version()).Msg("starting")
	stopTelling := p.background(p.tellSystemd)
	defer stopTelling()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.svc.Run(ctx) }()

	var underWay atomic.Bool // from a signal until its upgrade has failed
	upgraded := make(chan struct{})
	for !p.stopping.Load() {
		select {
		case err := <-done:
			return p.exit(err)
		case <-hangups:
			p.reload(ctx)
		case <-p.upgrades:
			if underWay.CompareAndSwap(false, true) {
				go func() {
					if p.upgrade(ctx, p.notify, func() { underWay.Store(false) }) == nil {
						close(upgraded)
					}
				}()
			}
		case <-upgraded:
			p.upgrades, upgraded = nil, nil // the next is the new process's
			stopTelling()
			if p.stopAdmin != nil {
				p.stopAdmin()
			}
		case sig := <-signals:
			p.log.Info().Stringer("signal", sig).Stringer("stop_timeout", p.stopTimeout).Msg("stopping")
			p.stopping.Store(true)
		}
	}
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

// tellSystemd says READY when the service is, feeds the watchdog, and shows as STATUS what is missing. It asks the
// service each time, so that one whose locks hang is restarted.
func (p *process) tellSystemd(ctx context.Context) {
	const (
		often = 100 * time.Millisecond
		later = 5 * time.Second
	)
	interval := often
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		p.log.Warn().Err(err).Msg("systemd watchdog not fed")
	}
	if !p.before.Wait(ctx) { // the other process is the one that systemd knows
		return
	}
	_, listened := os.LookupEnv("NOTIFY_SOCKET")
	isReady, missing := false, ""
	for {
		if watchdog > 0 {
			p.notify(daemon.SdNotifyWatchdog)
		}
		now := ""
		if err := p.ready(); err != nil {
			now = err.Error()
		}
		switch {
		case now == "" && !isReady:
			isReady = true
			p.log.Info().Msg("ready")
			p.notify(daemon.SdNotifyReady + "\nSTATUS=ready")
			interval = later
			if watchdog > 0 {
				interval = min(max(watchdog/2, often), later)
			}
		case now == missing || p.stopping.Load():
		case !isReady:
			p.log.Info().Str("missing", now).Msg("not ready yet")
			p.notify(status("waiting", now))
		default:
			p.notify(status("ready", now))
		}
		missing = now
		if !retry.Sleep(ctx, interval) || isReady && !listened {
			return
		}
	}
}

// status is what systemctl shows of a service in one line.
func status(state, missing string) string {
	if missing != "" {
		state = "waiting: " + strings.ReplaceAll(missing, "\n", "; ")
	}
	return "STATUS=" + state
}

func (p *process) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		p.log.Warn().Err(err).Str("state", state).Msg("systemd not notified")
	}
}
