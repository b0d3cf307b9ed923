package agentproxy

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
)

// Another farm proxy has a line to the pool of its own, on which nothing is changed.
func TestRelay(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]string{
		"BTCAgent":    `{"id":"conn_test","method":"agent.get_capabilities","params":[["verrol"]]}`,
		"BTCAgent, C": `{"id":1,"method":"mining.subscribe","params":["btccom-agent/1.0.0-su"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newFakePool(t)
			s := proxyOf(t, nil, p)
			p.login()
			agent := dial(t, s)
			agent.say(first)
			line := p.accept()
			line.want(string(probe[:len(probe)-1]))
			line.say(capable)
			line.want(first)
			line.say(capable)
			agent.want(strings.TrimSuffix(capable, "\n"))

			frame, _ := hex.DecodeString("7f0406000000")
			agent.say(string(frame[:5])) // in two pieces, the last of which is a line's end
			if got := line.hear(); got != "7f0406000000"[:10]+"0a" {
				t.Errorf("heard %s", got)
			}
			s.onLoop(t, func() {
				for _, m := range s.miners {
					m.readBy = time.Time{} // it owes no login
					m.check()
				}
			})
			agent.say("more")
			line.want("more")
			line.conn.Close()
			if text, err := agent.r.ReadString('\n'); err == nil {
				t.Errorf("the pool has ended the line, heard %s", text)
			}
			testkit.Eventually(t, "it is forgotten", func() bool {
				var relays, left int
				s.onLoop(t, func() { relays, left = s.relays, len(s.miners) })
				return relays == 0 && left == 0
			})
		})
	}
}

// A farm proxy is not left to guess when there is no pool for it.
func TestRelayToNoPool(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	s := proxyOf(t, func(c *Config) { c.Pools[0].Protocol = ProtocolStratum }, p)
	agent := dial(t, s)
	agent.say(string(probe))
	if text, err := agent.r.ReadString('\n'); err == nil {
		t.Errorf("heard %s", text)
	}
}

// A proxy whose pool is itself asks itself for ever whether it can, but not endlessly often.
func TestPoolOfItself(t *testing.T) {
	t.Parallel()
	own := testkit.FreeAddr(t)
	cfg := DefaultConfig()
	cfg.Listeners = []Listener{{Listen: own}}
	cfg.Page = ""
	cfg.Pools = []Pool{{Addr: own, Account: "farm"}}
	cfg.DialTimeout = config.Duration(2 * time.Second)
	reg := prometheus.NewRegistry()
	s, err := New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, s.Run)
	testkit.Eventually(t, "it has given up once", func() bool {
		return testkit.Metric(t, reg, "btcpool_agentproxy_dials_total", "result", "failed") > 0
	})
	s.onLoop(t, func() { s.relays += maxRelays }) // as many as there may be
	agent := dial(t, s)
	agent.say(`{"id":"conn_test","method":"agent.get_capabilities","params":[["verrol"]]}`)
	if line, err := agent.r.ReadString('\n'); err == nil {
		t.Errorf("one more is answered: %s", line)
	}
	s.onLoop(t, func() { s.relays -= maxRelays })
	if s.Ready() == nil {
		t.Error("ready")
	}
}

// One that still looks for a pool is not sent away for another pool's being up.
func TestRelayBeforeItsPool(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	s := proxyOf(t, nil, p)
	p.login()
	agent := dial(t, s)
	agent.say(`{"id":"conn_test","method":"agent.get_capabilities","params":[["verrol"]]}`)
	line := p.accept()
	line.hear()
	s.onLoop(t, func() {
		for _, m := range s.miners {
			m.check()
		}
	})
	line.say(capable)
	line.want(`{"id":"conn_test","method":"agent.get_capabilities","params":[["verrol"]]}`)
}
