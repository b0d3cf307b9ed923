//go:build !windows

package service

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func notifyStops() (signals <-chan os.Signal, stop func()) {
	stops := make(chan os.Signal, 2)
	signal.Notify(stops, syscall.SIGINT, syscall.SIGTERM)
	return stops, func() { signal.Stop(stops) }
}

// Managed runs main and returns its exit code. Only Windows' service manager needs more.
func Managed(_ string, stderr io.Writer, main func(stderr io.Writer) int) int { return main(stderr) }

// Control fails: only Windows has its service manager.
func Control(string, string, []string) error {
	return errors.New("only Windows has such services: elsewhere there is deploy/systemd")
}
