package service

import (
	"sync/atomic"

	"github.com/rs/zerolog"
)

// Fault is one thing that may keep a service from working. It is logged when it begins and when it ends, and Err is for
// Ready. Its methods may be called from any goroutine.
type Fault struct {
	log          zerolog.Logger
	level        zerolog.Level
	begins, ends string
	now          atomic.Pointer[outcome]
}

type outcome struct {
	err    error
	failed bool // and logged, unlike what is waited for
}

// NewFault returns a fault that has not begun. Its beginning is logged at level with the text begins, its end at info
// with the text ends.
func NewFault(log zerolog.Logger, level zerolog.Level, begins, ends string) *Fault {
	f := &Fault{log: log, level: level, begins: begins, ends: ends}
	f.now.Store(new(outcome))
	return f
}

// Await sets what Err returns until the first Set, without a line in the log: a service that has just begun waits,
// which is no fault.
func (f *Fault) Await(err error) { f.now.Store(&outcome{err: err}) }

// Set keeps the outcome of the latest try, nil when it went well.
func (f *Fault) Set(err error) {
	if err == nil && f.now.Load().err == nil {
		return // without an allocation: it may be called often
	}
	before := f.now.Swap(&outcome{err, err != nil})
	switch {
	case err != nil && !before.failed:
		f.log.WithLevel(f.level).Err(err).Msg(f.begins)
	case err == nil && before.failed:
		f.log.Info().Msg(f.ends)
	}
}

// Err returns the outcome of the latest try, or what is waited for.
func (f *Fault) Err() error { return f.now.Load().err }
