//go:build !unix

package service

import "os"

func notifyUpgrades(chan<- os.Signal) (stop func()) { return func() {} }
