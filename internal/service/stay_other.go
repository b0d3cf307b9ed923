//go:build !linux

package service

import "runtime"

func stayed() bool { return false }

func stay() (code int, err error) { return 0, possible(runtime.GOOS) }
