package switcher

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"btcpool/internal/config"
	"btcpool/internal/testkit"
)

func TestNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 200)
	for _, test := range []struct {
		full  string
		lower bool
		want  string // user and miner, "" when it is refused
		code  int
	}{
		{"alice", false, "alice ", 0},
		{"Alice.Rig.1", false, "Alice .Rig.1", 0},
		{"Alice.Rig.1", true, "alice .Rig.1", 0},
		{"a b\tc\x00{}\"é.r\n", false, "abc .r", 0},
		{"a-b_c:d|e^f.x", false, "a-b_c:d|e^f .x", 0},
		{"alice.", false, "alice .", 0},
		{long, false, long + " ", 0},
		{long + "a", false, "", 106},
		{long + "." + strings.Repeat("b", 800), false, long + " ." + strings.Repeat("b", 800), 0},
		{strings.Repeat("a", 2000), false, "", 106},
		{"", false, "", 105},
		{".rig", false, "", 105},
		{".", false, "", 105},
		{"..", false, "", 105},
		{"é", false, "", 105},
		{"a/b", false, "", 106},
		{"/", false, "", 106},
		{"../alice.rig", false, "", 105},
	} {
		got, why := splitName(test.full, test.lower)
		switch {
		case why != nil && (test.want != "" || why.code != test.code):
			t.Errorf("%.40q: code %d, want %d", test.full, why.code, test.code)
		case why == nil && got.user+" "+got.miner != test.want:
			t.Errorf("%.40q: %v, want %q", test.full, got, test.want)
		}
	}
	if got := (name{"mmm", ".rig"}).suffixed("bcc"); got != "mmm_bcc.rig" {
		t.Errorf("with a suffix: %q", got)
	}
}

// Every login that is refused is answered with the request's id and a code of its own, and ends the connection.
func TestRefusedLogins(t *testing.T) {
	t.Parallel()
	refusing := startPool(t, "a", func(p *pool) { p.refuses = func(string) bool { return true } })
	silent := startPool(t, "b", func(p *pool) { p.silent = map[string]bool{"mining.authorize": true} })
	r := startRig(t, []Chain{chainOf("btc", refusing), chainOf("gone"), chainOf("mute", silent)}, map[string]string{
		"refused": "btc", "nowhere": "ltc", "missing": "", "lonely": "gone", "waiting": "mute",
	}, func(c *Config) {
		c.Chains[1].Servers = []Server{{Addr: testkit.FreeAddr(t)}}
		c.Hold, c.UpstreamTimeout, c.DialTimeout = config.Duration(time.Second), config.Duration(200*time.Millisecond), config.Duration(time.Second)
	})
	const subscribe = `{"id":"s","method":"mining.subscribe","params":[]}` + "\n"
	for _, test := range []struct{ name, in, want string }{
		{"not subscribed", `{"id":7,"method":"mining.authorize","params":["alice","x"]}`, `{"id":7,"result":null,"error":[101,"Need Subscribed",1]}`},
		{"no parameters", subscribe + `{"id":7,"method":"mining.authorize","params":[]}`, `{"id":7,"result":null,"error":[103,"Too Few Params",1]}`},
		{"no text", subscribe + `{"id":7,"method":"mining.authorize","params":[{},"x"]}`, `{"id":7,"result":null,"error":[104,"Worker Name Must be a String",1]}`},
		{"no name", subscribe + `{"id":7,"method":"mining.authorize","params":[".rig","x"]}`, `{"id":7,"result":null,"error":[105,"Sub-account Name Cannot be Empty",1]}`},
		{"a path", subscribe + `{"id":7,"method":"mining.authorize","params":["a/b","x"]}`, `{"id":7,"result":null,"error":[106,"Invalid Worker Name",1]}`},
		{"no node", subscribe + `{"id":7,"method":"mining.authorize","params":["missing","x"]}`, `{"id":7,"result":null,"error":[201,"Invalid Sub-account Name",1]}`},
		{"ZooKeeper away", subscribe + `{"id":7,"method":"mining.authorize","params":["stranger","x"]}`, `{"id":7,"result":null,"error":[202,"Sub-account Cannot be Looked up Now",1]}`},
		{"no such chain", subscribe + `{"id":7,"method":"mining.authorize","params":["nowhere","x"]}`, `{"id":7,"result":null,"error":[301,"Stratum Server Not Found",1]}`},
		{"no server", subscribe + `{"id":7,"method":"mining.authorize","params":["lonely","x"]}`, `{"id":7,"result":null,"error":[302,"Connect Stratum Server Failed",1]}`},
		{"a server that says nothing", subscribe + `{"id":7,"method":"mining.authorize","params":["waiting","x"]}`, `{"id":7,"result":null,"error":[302,"Connect Stratum Server Failed",1]}`},
		{"refused by the server", subscribe + `{"id":"x7","method":"mining.authorize","params":["refused.r","x"]}`, `{"id":"x7","result":false,"error":[24,"Unauthorized worker here",null]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := dialMachine(t, r.Addrs()[0].String())
			m.write(test.in)
			var last string
			for {
				got, err := m.read()
				if err != nil {
					break
				}
				last = got.line
			}
			if last != test.want {
				t.Errorf("the last word is %s, want %s", last, test.want)
			}
		})
	}
	t.Run("no session id left", func(t *testing.T) {
		t.Parallel()
		full := startRig(t, []Chain{chainOf("btc", refusing)}, nil)
		full.ids.mu.Lock()
		full.ids.given = sessionIDs
		full.ids.mu.Unlock()
		m := full.machine()
		if got := m.hear(m.ask("mining.subscribe", "[]")); !strings.Contains(string(got.Error), `107,"Too Many Connections"`) {
			t.Errorf("answer %s", got.line)
		}
		m.ended()
	})
	t.Run("twice", func(t *testing.T) {
		t.Parallel()
		m := dialMachine(t, r.Addrs()[0].String())
		m.write(strings.TrimSpace(subscribe))
		if got := m.hear(m.ask("mining.subscribe", "[]")); !strings.Contains(string(got.Error), `102,"Duplicate Subscribed"`) {
			if got = m.hear("1"); !strings.Contains(string(got.Error), `102,"Duplicate Subscribed"`) {
				t.Errorf("answer %s", got.line)
			}
		}
	})
}

// What comes that is no Stratum, or not in time, ends the connection.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	p := startPool(t, "a")
	r := startRig(t, []Chain{chainOf("btc", p)}, map[string]string{"alice": "btc"}, func(c *Config) {
		c.DetectTimeout, c.LoginTimeout, c.IdleTimeout = config.Duration(time.Second), config.Duration(2*time.Second), config.Duration(time.Second)
	})
	for name, say := range map[string]string{
		"nothing":     "",
		"no Stratum":  "GET / HTTP/1.1\r\n\r\n",
		"no login":    `{"id":1,"method":"mining.subscribe","params":[]}` + "\n",
		"half a line": `{"id":1,"method":`,
		"no JSON":     strings.Repeat("{x\n", maxJunk),
		"endless":     "{" + strings.Repeat(" ", 20<<10),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := dialMachine(t, r.Addrs()[0].String())
			if _, err := fmt.Fprint(m.Conn, say); err != nil {
				t.Fatal(err)
			}
			m.ended()
		})
	}
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		m := dialMachine(t, r.Addrs()[0].String())
		m.login("alice")
		m.ended()
	})
}

// A user that a chain knows by another name only is known there by that, for its logins and shares; elsewhere by its own.
func TestSuffix(t *testing.T) {
	t.Parallel()
	btc := startPool(t, "a")
	bch := startPool(t, "b", func(p *pool) { p.refuses = func(name string) bool { return !strings.HasPrefix(name, "alice_cash") } })
	chains := []Chain{chainOf("btc", btc), chainOf("bch", bch)}
	chains[1].UserSuffix = "cash"
	r := startRig(t, chains, map[string]string{"alice": "bch"})
	m := r.machine()
	_, job := m.login("Alice.rig")
	if got := m.hear(m.ask("mining.authorize", `["alice.second","x"]`)); string(got.Result) != "true" {
		t.Errorf("another worker: %s", got.line)
	}
	m.submit(job.param(0))
	if line := bch.last("mining.submit"); !strings.Contains(line, `"alice_cash.rig"`) {
		t.Errorf("the share is sent as %s", line)
	}
	r.says("alice", "btc")
	for !strings.HasPrefix(job.param(0)[1:], "a") {
		job = m.hear("mining.notify")
	}
	testkit.Eventually(t, "the other worker is logged in on the next chain", func() bool { return btc.count(`"alice.second"`) == 1 })
	m.submit(job.param(0))
	if line := btc.last("mining.submit"); !strings.Contains(line, `"alice.rig"`) {
		t.Errorf("the share is sent as %s", line)
	}
}

// A miner whose new chain refuses it stays on the old one, and mines there.
func TestRefusedSwitch(t *testing.T) {
	t.Parallel()
	btc := startPool(t, "a")
	bch := startPool(t, "b", func(p *pool) { p.refuses = func(string) bool { return true } })
	r := startRig(t, []Chain{chainOf("btc", btc), chainOf("bch", bch)}, map[string]string{"alice": "btc"})
	m := r.machine()
	_, job := m.login("alice")
	r.says("alice", "bch")
	testkit.Eventually(t, "the switch is refused", func() bool {
		return testkit.Metric(t, r.reg, "btcpool_switcher_switches_failed_total", "result", "refused") == 1
	})
	r.says("alice", "ltc") // which is no chain at all
	testkit.Eventually(t, "the chain is not known", func() bool {
		return testkit.Metric(t, r.reg, "btcpool_switcher_unknown_chain_total") >= 1
	})
	if got := m.submit(job.param(0)); string(got.Result) != "true" || btc.count("mining.submit") != 1 {
		t.Errorf("share: %s", got.line)
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	p := &idPool{server: 7}
	now := time.Now()
	first, _ := p.get(now)
	second, _ := p.get(now)
	if first != 7<<24|firstID || second != first+1 {
		t.Errorf("ids %08x, %08x", first, second)
	}
	p.put(first, now)
	if third, _ := p.get(now.Add(idRest - 1)); third == first {
		t.Errorf("%08x is given again at once", first)
	}
	if again, _ := p.get(now.Add(idRest)); again != first {
		t.Errorf("%08x, want %08x after its rest", again, first)
	}
	p.given = sessionIDs
	if id, ok := p.get(now); ok {
		t.Errorf("%08x where there is none", id)
	}
}
