package testkit

import (
	"testing"
	"time"
	"unsafe"
)

// Stepped returns what time.Now would have returned in place of t if the wall clock had been moved by whole seconds
// before: the monotonic reading stays.
func Stepped(tb testing.TB, t time.Time, by time.Duration) time.Time {
	tb.Helper()
	stepped := t
	// The first word of a time with a monotonic reading is a flag, 33 bits of seconds and 30 bits of nanoseconds.
	*(*uint64)(unsafe.Pointer(&stepped)) += uint64(by/time.Second) << 30
	if stepped.Sub(t) != 0 || stepped.Round(0).Sub(t.Round(0)) != by {
		tb.Fatal("time.Time is not what it was, or has no monotonic reading")
	}
	return stepped
}
