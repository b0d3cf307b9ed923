package agentproxy

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"btcpool/internal/agentwire"
	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/retry"
)

// checkPayout returns what is wrong with a pool's work: p says who has to be paid by it, if anybody.
func (p Pool) checkPayout(j *job.StratumJob) error {
	if p.PayoutAddress == "" {
		return nil
	}
	script, err := bitcoin.PayoutScript(p.PayoutAddress)
	if err != nil {
		return err
	}
	outputs, err := bitcoin.CoinbaseOutputs(j.Coinbase1, extraNonceSize, j.Coinbase2)
	if err != nil {
		return fmt.Errorf("the pool's work cannot be checked: %w", err)
	}
	var ours, all int64
	for _, out := range outputs {
		all += out.Value
		if bytes.Equal(out.PkScript, script) {
			ours += out.Value
		}
	}
	switch {
	case ours == 0:
		return fmt.Errorf("the pool's work pays nothing to %s", p.PayoutAddress)
	case float64(ours) < p.PayoutShare*float64(all):
		return fmt.Errorf("the pool's work pays %.2f%% to %s, payout_share asks for %.2f%%",
			100*float64(ours)/float64(all), p.PayoutAddress, 100*p.PayoutShare)
	}
	return nil
}

// extraNonceSize is what miners have in a coinbase, in bytes: see minersJob.
const extraNonceSize = 4 + agentwire.MinerExtraNonce2Size

// shunned are pools whose work was refused, which are left alone for a while. The zero value is ready; its methods may
// be called from any goroutine.
type shunned struct {
	mu sync.Mutex
	of map[target]*shun
}

type shun struct {
	why    error
	until  time.Time
	pauses *backoff.ExponentialBackOff
}

// shunPace is for how long, and shunMemory after what time a pool that has done better begins anew.
var shunPace = retry.Pace{First: time.Minute, Longest: 30 * time.Minute}

const shunMemory = 2 * time.Hour

// add has t left alone from now on.
func (s *shunned) add(t target, why error, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = make(map[target]*shun)
	}
	it := s.of[t]
	if it == nil || now.Sub(it.until) > shunMemory {
		it = &shun{pauses: shunPace.Pauses()}
		s.of[t] = it
	}
	it.why = why
	if now.After(it.until) { // else several links have seen the same
		it.until = now.Add(it.pauses.NextBackOff())
	}
}

// err returns why t is left alone, nil if it is not.
func (s *shunned) err(t target, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if it := s.of[t]; it != nil && now.Before(it.until) {
		return it.why
	}
	return nil
}

// keep forgets all but those of routes.
func (s *shunned) keep(routes []route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.of
	s.of = make(map[target]*shun)
	for _, r := range routes {
		for _, t := range r.targets {
			if it := old[t]; it != nil {
				s.of[t] = it
			}
		}
	}
}
