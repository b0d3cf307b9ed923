//go:build integration

package faults

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// Faults of the network between a service and the servers that it uses: see rig.Lines.

const (
	mostDelay = 500 * time.Millisecond // each way
	mostLoss  = .4
)

func (w *world) slowNetwork(f fault) func() {
	w.eachLine(f.target, func(l *rig.Line) { l.Delay(time.Duration(f.amount * float64(mostDelay))) })
	return func() { w.eachLine(f.target, func(l *rig.Line) { l.Delay(0) }) }
}

// lossyNetwork has the kernel lose packets of everybody, where it may, or what is sent on a service's lines arrive
// late.
func (w *world) lossyNetwork(f fault) func() {
	if f.target == everybody {
		way, end, err := losePackets(w.t, f.amount)
		if err == nil {
			return func() { w.t.Logf("%s: %s has lost %s packets", f, way, end()) }
		}
		w.t.Logf("%s: only late, no packets are lost: %v", f, err)
	}
	w.eachLine(f.target, func(l *rig.Line) { l.Lose(f.amount * mostLoss) })
	return func() { w.eachLine(f.target, func(l *rig.Line) { l.Lose(0) }) }
}

// cutOff resets all connections of a service, again and again.
func (w *world) cutOff(f fault) func() {
	cut := func() { w.eachLine(f.target, (*rig.Line).Cut) }
	cut()
	return cut
}

// halfClose has the service read an end where its servers would go on.
func (w *world) halfClose(f fault) func() {
	w.eachLine(f.target, (*rig.Line).HalfClose)
	return func() {}
}

// part separates a service from one of its servers: what they send does not arrive, and nobody hears of it. In the end
// it arrives after all, or the connections are reset.
func (w *world) part(f fault) func() {
	lines := w.lines.Of(f.target)
	place := f.amount * float64(len(lines))
	from := lines[int(place)]
	from.Silence()
	return func() {
		if late := place-float64(int(place)) < .5; !late {
			from.Cut()
		}
		from.Speak()
	}
}

// isolate separates a service from all of its servers.
func (w *world) isolate(f fault) func() {
	w.eachLine(f.target, (*rig.Line).Silence)
	return func() { w.eachLine(f.target, (*rig.Line).Speak) }
}

func (w *world) eachLine(service string, do func(*rig.Line)) {
	if service == everybody {
		service = ""
	}
	for _, l := range w.lines.Of(service) {
		do(l)
	}
}

// TestIsolated separates all services from all servers, so that none can do its work: each says so, and why, though no
// connection of it was closed. When the network is back, everything goes on, and nothing is lost.
func TestIsolated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	miner := w.pool.StartMiner(t, w.dir, "miner", "-user", "carol.rig", "-password", "d=0.00001", "-threads", "1", "-conns", "3", "-rate", "2", "-reconnect")
	w.grows("before", 2)
	w.eachLine(everybody, (*rig.Line).Silence)
	began := time.Now()
	for _, service := range w.pool.Names {
		testkit.Until(t, patience, service+" says that it cannot work", func(ctx context.Context) error {
			err := w.pool.Ready(ctx, service)
			if err == nil {
				return errors.New("it is ready")
			}
			words := wordsOf(err)
			if slices.Contains(words, noAnswer) {
				return err
			}
			if slices.Contains(words, noWord) {
				t.Fatalf("%s: %v", service, err)
			}
			t.Logf("%s after %v: %q", service, time.Since(began).Round(time.Second), words)
			return nil
		})
	}
	w.eachLine(everybody, (*rig.Line).Speak)
	for _, service := range w.pool.Names {
		w.ready(service)
	}
	w.grows("after", 3)
	if code, err := miner.Stop(); err != nil || code != 0 {
		t.Fatalf("minersim ended with code %d, %v", code, err)
	}
	w.ledger.Add(miner.Acks(), miner.Report().Unanswered)
	w.settle("isolated")
	t.Log(w.ledger.String())
}
