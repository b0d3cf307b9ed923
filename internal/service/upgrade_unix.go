//go:build unix

package service

import (
	"os"
	"os/signal"
	"syscall"
)

func notifyUpgrades(c chan<- os.Signal) (stop func()) {
	signal.Notify(c, syscall.SIGUSR2)
	return func() { signal.Stop(c) }
}
