package service

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Log says what is logged and how.
type Log struct {
	Level  string `toml:"level" env:"LEVEL"`               // trace, debug, info, warn, error; empty: info
	Format string `toml:"format" env:"FORMAT" reload:"no"` // json or console; empty: json
}

const logTime = "2006-01-02T15:04:05.000Z07:00"

// NewLogger returns a logger that writes lines to w.
func NewLogger(w io.Writer, l Log) (zerolog.Logger, error) {
	if err := l.validate(); err != nil {
		return zerolog.Nop(), err
	}
	if l.Format == "console" {
		w = zerolog.ConsoleWriter{Out: w, NoColor: true, TimeFormat: logTime, TimeLocation: time.UTC}
	}
	level, _ := l.level()
	return zerolog.New(zerolog.SyncWriter(w)).Level(level).Hook(zerolog.HookFunc(timestamp)), nil
}

// timestamp exists because zerolog's own resolution is a package variable.
func timestamp(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str(zerolog.TimestampFieldName, time.Now().UTC().Format(logTime))
}

// threshold is the lowest level that a logger writes, which may change while it does. It is a hook.
type threshold struct{ level atomic.Int32 }

func (t *threshold) set(l Log) {
	level, _ := l.level() // was validated
	t.level.Store(int32(level))
}

// Run is called for each line.
func (t *threshold) Run(e *zerolog.Event, level zerolog.Level, _ string) {
	if level < zerolog.Level(t.level.Load()) {
		e.Discard()
	}
}

func (l Log) level() (zerolog.Level, error) {
	switch l.Level {
	case "":
		return zerolog.InfoLevel, nil
	case "trace", "debug", "info", "warn", "error":
		return zerolog.ParseLevel(l.Level)
	}
	return zerolog.NoLevel, fmt.Errorf("level = %q: must be trace, debug, info, warn or error", l.Level)
}

func (l Log) validate() error {
	_, err := l.level()
	switch l.Format {
	case "", "json", "console":
		return err
	}
	return errors.Join(err, fmt.Errorf("format = %q: must be json or console", l.Format))
}
