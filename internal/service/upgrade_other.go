//go:build !linux

package service

import "os"

func notifyUpgrades(chan<- os.Signal) (stop func()) { return func() {} }
