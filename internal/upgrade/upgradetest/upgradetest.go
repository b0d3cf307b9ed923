// Package upgradetest has services hand over to others of the same process.
package upgradetest

import (
	"context"
	"math"
	"testing"
	"time"

	"btcpool/internal/upgrade"
)

// Service is one that can hand over.
type Service interface {
	HandOver(ctx context.Context, to *upgrade.Successor) (sessions int, pause time.Duration, err error)
}

// Outcome is what HandOver returns.
type Outcome struct {
	Sessions int
	Pause    time.Duration
	Err      error
}

// Offer has s hand over to who is given the predecessor.
func Offer(tb testing.TB, s Service) (before *upgrade.Predecessor, moved <-chan Outcome) {
	tb.Helper()
	done := make(chan Outcome, 1)
	_, before, err := upgrade.Pair(func(to *upgrade.Successor) error {
		go func() {
			var o Outcome
			o.Sessions, o.Pause, o.Err = s.HandOver(context.Background(), to)
			done <- o
		}()
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return before, done
}

// CutOff has hand-overs of s cut off behind each of their messages, the first before there is any, until whoever begins has
// nobody else to ask: it was "go" that was lost. Others are made by build, and must not begin before; s must go on as if
// nothing had been, of which stays makes sure, and after that the other, as goes does. It returns how many messages passed.
func CutOff[S interface{ Run(context.Context) error }](tb testing.TB, s Service, build func(*upgrade.Predecessor) (S, error),
	stays func(messages int), goes func(messages int, other S), listeners ...string,
) (messages int) {
	tb.Helper()
	for messages = -1; ; messages++ {
		before, moved, cut := between(tb, s, messages, func(byte) {}, listeners)
		other, err := build(before)
		if err != nil {
			tb.Fatal(err)
		}
		ended := make(chan error, 1)
		ctx, stop := context.WithCancel(tb.Context())
		go func() { ended <- other.Run(ctx) }()
		handedOver := (<-moved).Err
		all := <-cut
		if handedOver == nil {
			goes(messages, other)
			stop()
			if err := <-ended; err != nil {
				tb.Error(err)
			}
			tb.Logf("%d messages", messages)
			return messages
		}
		if !all {
			tb.Fatalf("not taken over: %v", handedOver)
		}
		if err := <-ended; err == nil {
			tb.Fatalf("%d messages, %v: the new process has begun", messages, handedOver)
		}
		stop()
		stays(messages)
	}
}

// Amid is Offer with do called each time that the new process has said something of a kind, before s hears of it.
func Amid(tb testing.TB, s Service, kind byte, do func(n int), listeners ...string) (before *upgrade.Predecessor, moved <-chan Outcome) {
	tb.Helper()
	n := 0
	before, moved, _ = between(tb, s, math.MaxInt, func(said byte) {
		if said == kind {
			n++
			do(n)
		}
	}, listeners)
	return before, moved
}

// between is Offer with somebody between the two, who passes on so many messages of s, and listeners of these names. With
// the next, or at once if there are to be fewer than none, each takes the other for dead. Cut tells whether there was one.
// It is not earlier, when the new process may have said that it could go on: one that does is killed by the old one.
func between(tb testing.TB, s Service, messages int, said func(kind byte), listeners []string) (before *upgrade.Predecessor, moved <-chan Outcome, cut <-chan bool) {
	tb.Helper()
	old, moved := Offer(tb, s)
	to, before, err := upgrade.Pair(func(to *upgrade.Successor) error {
		for _, name := range listeners {
			to.Offer(name, old.Listener(name))
		}
		return to.Introduce(old.Settings)
	})
	if err != nil {
		tb.Fatal(err)
	}
	ended := make(chan bool, 1)
	go pass(to.Conn, old.Conn, math.MaxInt, said)
	go func() { ended <- pass(old.Conn, to.Conn, messages, func(byte) {}) }()
	return before, moved, ended
}

// pass passes on so many messages, and ends both connections with the next. It reports whether there was one.
func pass(from, to *upgrade.Conn, most int, said func(kind byte)) (all bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	for n := 0; most >= 0; n++ {
		m, err := from.Receive()
		if err == nil && n < most {
			said(m.Kind)
			err = to.Send(m.Kind, m.Body, m.FDs...)
		}
		m.Close()
		if err != nil || n == most {
			return err == nil
		}
	}
	return true
}
