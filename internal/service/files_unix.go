//go:build !windows

package service

import (
	"math"
	"syscall"
)

// OpenFiles returns how many files and connections this process may have open at a time: the hard limit, which the Go
// runtime makes the soft one at the start.
func OpenFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt
	}
	return int(min(uint64(limit.Cur), math.MaxInt)) //nolint:unconvert // of another type elsewhere
}
