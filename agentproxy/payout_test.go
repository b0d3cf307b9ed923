package agentproxy

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"btcpool/internal/bitcoin"
	"btcpool/internal/testkit"
)

const (
	ourAddress   = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
	theirAddress = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"
)

// paying is a job whose coinbase pays satoshi to addresses.
func paying(t *testing.T, id string, satoshi map[string]int64) string {
	t.Helper()
	outputs := []wire.TxOut{{PkScript: bitcoin.WitnessCommitment(nil)}}
	for addr, value := range satoshi {
		script, err := bitcoin.PayoutScript(addr)
		if err != nil {
			t.Fatal(err)
		}
		outputs = append(outputs, wire.TxOut{Value: value, PkScript: script})
	}
	c1, c2, err := bitcoin.Coinbase{Height: 840_000, Time: 1, Text: "/pool/", Outputs: outputs, ExtranonceSize: 12}.Build()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"id":null,"method":"mining.notify","params":["%s","%064x","%s","%s",[],"20000000","1703a30c","65000000",true]}`+"\n",
		id, 1, hex.EncodeToString(c1), hex.EncodeToString(c2))
}

// Work that does not pay whom it has to never reaches a machine: the next pool is used, and the first is left alone.
func TestPayoutRefused(t *testing.T) {
	t.Parallel()
	for _, protocol := range []Protocol{ProtocolAgent, ProtocolStratum} {
		t.Run(string(protocol), func(t *testing.T) {
			t.Parallel()
			good, other := newFakePool(t), newFakePool(t)
			s := proxyOf(t, func(c *Config) {
				c.Pools[0].Protocol = protocol
				c.Pools[0].PayoutAddress, c.Pools[0].PayoutShare = ourAddress, 0.9
			}, good, other)
			l := good.accept()
			if protocol == ProtocolAgent {
				l.hear()
				l.say(capable)
				l.hear()
			}
			for range 3 {
				l.hear()
			}
			l.say(`{"id":"sub","result":[[],"01a2b3c4",8],"error":null}` + "\n" +
				`{"id":"auth","result":true,"error":null}` + "\n" + `{"id":null,"method":"mining.set_difficulty","params":[1000]}` + "\n")
			l.say(paying(t, "1", map[string]int64{ourAddress: 90, theirAddress: 10}))
			r := dial(t, s)
			r.login("a.rig1")
			l.say(paying(t, "2", map[string]int64{ourAddress: 89, theirAddress: 11}))
			l.left(s)
			why := "the pool's work pays 89.00% to " + ourAddress + ", payout_share asks for 90.00%"
			testkit.Eventually(t, "it is said why", func() bool {
				err := s.Ready()
				return err != nil && strings.Contains(err.Error(), good.addr()+": "+why)
			})
			other.login()
			r.awaitJob("aa0101a2b3c4") // the other's
			if got := testutil.ToFloat64(s.metrics.refusedJobs); got != 1 {
				t.Errorf("%v jobs refused, want 1", got)
			}
			s.onLoop(t, func() {
				if err := s.shunned.err(s.routes[0].targets[0], time.Now()); err == nil || err.Error() != why {
					t.Errorf("the pool is not left alone: %v", err)
				}
			})
			// What is asked for now is another thing: the pool gets another chance.
			s.mustReload(t, func(c *Config) { c.Pools[0].PayoutShare = 0 })
			good.accept()
		})
	}
}

func TestCheckPayout(t *testing.T) {
	t.Parallel()
	p := Pool{PayoutAddress: ourAddress}
	for share, want := range map[float64]string{0: "", 0.5: "", 0.51: "pays 50.00% to"} {
		p.PayoutShare = share
		_, l, s, r := farm(t, nil)
		l.say(paying(t, "9", map[string]int64{ourAddress: 1 << 40, theirAddress: 1 << 40}))
		r.awaitJob("")
		s.onLoop(t, func() {
			err := p.checkPayout(s.accounts[""].last)
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("share %v: got %v, want %q", share, err, want)
			}
			if err := (Pool{PayoutAddress: "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry"}).checkPayout(s.accounts[""].last); err == nil ||
				!strings.Contains(err.Error(), "pays nothing to bcrt1q") {
				t.Errorf("another's: %v", err)
			}
		})
	}
	_, _, s, _ := farm(t, nil)
	s.onLoop(t, func() {
		if err := p.checkPayout(s.accounts[""].last); err == nil || !strings.Contains(err.Error(), "cannot be checked") {
			t.Errorf("a coinbase that is none: %v", err)
		}
	})
}

// A pool whose work is refused again is left alone for longer, but several links that see the same count once.
func TestShunned(t *testing.T) {
	t.Parallel()
	var s shunned
	errWork := errors.New("pays nothing")
	a, b := target{Pool: Pool{Addr: "a"}}, target{Pool: Pool{Addr: "b"}}
	now := time.Unix(1_700_000_000, 0)
	for _, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		for range 5 {
			s.add(a, errWork, now)
		}
		if err := s.err(a, now.Add(want-1)); !errors.Is(err, errWork) {
			t.Errorf("within %s: %v", want, err)
		}
		if now = now.Add(want); s.err(a, now) != nil {
			t.Errorf("still after %s", want)
		}
		now = now.Add(time.Second)
	}
	if now = now.Add(shunMemory); s.err(b, now) != nil {
		t.Error("another pool is left alone")
	}
	s.add(a, errWork, now)
	if s.err(a, now.Add(time.Minute)) != nil {
		t.Error("what it did long ago counts")
	}
	s.keep([]route{{targets: []target{b}}})
	if s.err(a, now) != nil || len(s.of) > 0 {
		t.Error("not forgotten")
	}
}
