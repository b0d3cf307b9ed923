package service

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/upgrade"
)

// An Upgrader is a Runner whose connections another process can go on with, of another version or configuration: its
// process starts that one on SIGUSR2, on Linux.
type Upgrader interface {
	Runner
	// HandOver has the new process go on, and Run end when nothing is left to do here. pause is for how long nobody was
	// served. When it fails, the new process has been killed, and this one goes on as before.
	HandOver(ctx context.Context, to *upgrade.Successor) (sessions int, pause time.Duration, err error)
}

// upgrades is what SIGUSR2 does.
type upgrades struct {
	log    zerolog.Logger
	failed prometheus.Counter
	svc    Upgrader
	name   string // of admin
	admin  net.Listener
}

func newUpgrades(log zerolog.Logger, reg *prometheus.Registry, svc Upgrader, name string, admin net.Listener) *upgrades {
	failed := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "btcpool_upgrades_failed_total",
		Help: "New processes that did not take over, so that this one went on.",
	})
	reg.MustRegister(failed)
	return &upgrades{log, failed, svc, name, admin}
}

// do says that it has failed when the next may begin, of which failed tells.
func (u *upgrades) do(ctx context.Context, notify func(string), failed func()) error {
	start := time.Now()
	u.log.Info().Msg("starting a new process to go on with the connections")
	notify(daemon.SdNotifyReloading)
	sessions, pause, err := u.handOver(ctx, notify)
	if err != nil {
		u.failed.Inc()
		failed()
		u.log.Error().Err(err).Dur("took_ms", time.Since(start)).Msg("no new process has taken over, this one goes on")
		notify(daemon.SdNotifyReady)
		return err
	}
	u.log.Info().Int("sessions", sessions).Dur("pause_ms", pause).Dur("took_ms", time.Since(start)).
		Msg("a new process has taken over")
	return nil
}

// possible returns why connections cannot pass to another process on such a system.
func possible(system string) error {
	if system != "linux" {
		return fmt.Errorf("on %s connections cannot pass to another process: restart the service", system)
	}
	return nil
}

func (u *upgrades) handOver(ctx context.Context, notify func(string)) (sessions int, pause time.Duration, err error) {
	if err := possible(runtime.GOOS); err != nil {
		return 0, 0, err
	}
	to, err := upgrade.Start()
	if err != nil {
		return 0, 0, err
	}
	if u.admin != nil {
		file, err := u.admin.(*net.TCPListener).File()
		if err != nil {
			to.Kill()
			return 0, 0, err
		}
		to.Offer(u.name, file)
	}
	// systemd must know whose end is the service's end before ours.
	to.BeforeGo = func() { notify(fmt.Sprintf("MAINPID=%d\n%s", to.PID(), daemon.SdNotifyReady)) }
	to.AfterFailedGo = func() { notify(fmt.Sprintf("MAINPID=%d\n%s", os.Getpid(), daemon.SdNotifyReady)) }
	return u.svc.HandOver(ctx, to)
}

func adminName(addr string) string { return "admin " + addr }

func listenAdmin(addr string, before *upgrade.Predecessor) (net.Listener, error) {
	if file := before.Listener(adminName(addr)); file != nil {
		defer file.Close()
		return net.FileListener(file)
	}
	return net.Listen("tcp", addr)
}
