package switcher

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"btcpool/internal/config"
	"btcpool/internal/testkit"
)

// A server that dies in the middle of a job, wherever that is, leaves no part of a line with the miner, which goes on at
// another server.
func TestEveryByteOfANotify(t *testing.T) {
	t.Parallel()
	line := notifyLine("job", true) + "\n"
	var cut atomic.Int64
	dying := startPool(t, "a", func(p *pool) {
		p.onJob = func(c *poolConn) {
			c.notify(true)
			_, _ = c.Write([]byte(line)[:cut.Load()])
			_ = c.Close()
		}
	})
	steady := startPool(t, "b")
	chains := []Chain{chainOf("btc", dying, steady)}
	chains[0].Servers[0].Weight = 1e6 // it is the first that is tried
	r := startRig(t, chains, map[string]string{"alice": "btc"})
	for n := 0; n <= len(line); n++ {
		cut.Store(int64(n))
		m := r.machine()
		m.login("alice")
		for {
			job := m.hear("mining.notify") // which fails if it is no JSON
			if strings.HasPrefix(job.param(0)[1:], "b") {
				if job.param(8) != "true" {
					t.Errorf("cut after %d: the first job of the next server is not clean", n)
				}
				break
			}
		}
		_ = m.Close()
	}
	if n := steady.count("mining.authorize"); n < len(line) {
		t.Errorf("%d logins at the second server, want %d", n, len(line))
	}
}

// Each request has one answer, whatever its id and whenever the miner is moved: from its server, or from the switcher
// where there is none.
func TestOneAnswerToEachRequest(t *testing.T) {
	t.Parallel()
	btc, bch := startPool(t, "a"), startPool(t, "b")
	r := startRig(t, []Chain{chainOf("btc", btc), chainOf("bch", bch)}, map[string]string{"alice": "btc"}, func(c *Config) {
		c.Limits.LinesPerSec = 0
	})
	defer func() {
		for err, reason := range reasons {
			if testkit.Metric(t, r.reg, "btcpool_switcher_disconnected_total", "reason", reason) != 0 {
				t.Errorf("the miner is disconnected: %v", err)
			}
		}
	}()
	m := r.machine()
	_, job := m.login("alice")
	const requests = 3000
	answers := make(map[string]int)
	asked := make(map[string]bool)
	done := make(chan error, 1)
	go func() {
		for {
			got, err := m.read()
			if err != nil {
				done <- err
				return
			}
			if got.Method == "" {
				answers[string(got.ID)]++
				if string(got.ID) == `"last"` {
					done <- nil
					return
				}
			}
		}
	}()
	for i := range requests {
		id := []string{fmt.Sprint(i + 1000), fmt.Sprintf(`"text %d"`, i), fmt.Sprintf(`{"n":[%d]}`, i), fmt.Sprintf("%d.5", i), fmt.Sprintf("-%d", i+1)}[i%5]
		asked[id] = true
		request := []string{
			fmt.Sprintf(`"mining.submit","params":["alice","%s","01020304","650a0b0c","%08x"]`, job.param(0), i),
			`"mining.unheard_of","params":[1,{"a":null}]`, `"mining.get_transactions","params":["x"]`, `"mining.extranonce.subscribe"`,
			`"mining.suggest_difficulty","params":[512]`, `"mining.submit","params":["alice","nojob","01020304","650a0b0c","00000000"]`,
			`"mining.submit","params":[]`, `"mining.ping","params":[]`, fmt.Sprintf(`"mining.authorize","params":["alice.more%d","x"]`, i%7),
			`"mining.subscribe","params":[]`, `"mining.configure","params":[["version-rolling","x"],{"version-rolling.mask":"1fffe000"}]`,
		}[i%11]
		m.write(fmt.Sprintf(`{"id":%s,"method":%s}`, id, request))
		switch i % 100 {
		case 30:
			r.says("alice", []string{"btc", "bch"}[i/100%2])
		case 60:
			btc.cut()
		case 90:
			bch.cut()
		}
	}
	// The last may be asked while there is no server, which is answered too.
	m.write(`{"id":"last","method":"mining.ping"}`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(testkit.Patience)
	go func() {
		for {
			got, err := m.read()
			if err != nil {
				done <- err
				return
			}
			if got.Method == "" {
				if string(got.ID) == `"end"` {
					done <- nil
					return
				}
				answers[string(got.ID)]++
			}
		}
	}()
	for time.Now().Before(deadline) && r.waiting() > 0 {
		time.Sleep(time.Millisecond)
	}
	m.write(`{"id":"end","method":"mining.ping"}`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for id := range asked {
		if answers[id] != 1 {
			t.Errorf("request %s has %d answers", id, answers[id])
		}
	}
	if len(answers) != len(asked)+1 {
		t.Errorf("%d different answers to %d requests", len(answers), len(asked))
	}
}

// waiting returns how many requests have no answer yet.
func (r *rig) waiting() (n int) {
	for _, l := range r.loops {
		_ = l.Call(background(r.t), func() {
			for _, s := range l.sessions {
				for u := range s.servers {
					n += len(u.questions)
				}
			}
		})
	}
	return n
}

// A server that never answers a request is answered for.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	btc := startPool(t, "a")
	r := startRig(t, []Chain{chainOf("btc", btc)}, map[string]string{"alice": "btc"}, func(c *Config) { c.AnswerTimeout = config.Duration(time.Second) })
	m := r.machine()
	m.login("alice")
	if got := m.hear(m.ask("test.silence", "[]")); !strings.Contains(string(got.Error), "Does Not Answer") {
		t.Errorf("answer %s", got.line)
	}
}

// What servers say while they let a miner in is not lost, in whatever order they say it.
func TestLoginNotificationsAreKept(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*pool){
		"btcpool":                         func(*pool) {},
		"job before the login is granted": func(p *pool) { p.early = true },
		"no version rolling":              func(p *pool) { p.mask = "" },
		"a mask and a message": func(p *pool) {
			p.onJob = func(c *poolConn) {
				c.say(`{"id":null,"method":"client.show_message","params":["welcome"]}`)
				c.say(`{"id":null,"method":"mining.set_version_mask","params":["00002000"]}`)
				c.notify(false)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, next := startPool(t, "a", set), startPool(t, "b", set)
			r := startRig(t, []Chain{chainOf("btc", p), chainOf("bch", next)}, map[string]string{"alice": "btc"})
			m := r.machine()
			m.hear(m.ask("mining.configure", `[["version-rolling"],{"version-rolling.mask":"1fffe000"}]`))
			m.hear(m.ask("mining.subscribe", `[]`))
			m.hear(m.ask("mining.authorize", `["alice","x"]`))
			heard := func() (all []string) {
				for {
					got, err := m.read()
					if err != nil {
						t.Fatal(err)
					}
					if all = append(all, got.Method); got.Method == "mining.notify" {
						return all
					}
				}
			}
			want := map[string]string{
				"no version rolling":   "[mining.set_version_mask mining.set_difficulty mining.notify]",
				"a mask and a message": "[client.show_message mining.set_version_mask mining.set_difficulty mining.notify]",
			}[name]
			if want == "" {
				want = "[mining.set_difficulty mining.notify]"
			}
			if got := fmt.Sprint(heard()); got != want {
				t.Errorf("after the login: %s, want %s", got, want)
			}
			r.says("alice", "bch")
			want = "[mining.set_difficulty mining.notify]"
			if name == "a mask and a message" {
				want = "[mining.set_difficulty client.show_message mining.notify]"
			}
			if got := fmt.Sprint(heard()); got != want {
				t.Errorf("after the switch: %s, want %s", got, want)
			}
		})
	}
}

// A stream of anything at all ends no process, and whatever is answered is lines of JSON.
func FuzzMiner(f *testing.F) {
	f.Add([]byte(`{"id":1,"method":"mining.subscribe","params":["x"]}`+"\n"+`{"id":2,"method":"mining.authorize","params":["alice.rig","x"]}`+"\n"), 10)
	f.Add([]byte(`{"id":1,"method":"mining.configure","params":[["version-rolling"],{}]}{"id":2,"method":"mining.ping"}`+"\n\x7f\x01\x04\x00"), 40)
	f.Add([]byte("PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n"), 5)
	f.Add([]byte("\x7f\x02\x04\x00{}\n"), 1)
	f.Fuzz(func(t *testing.T, in []byte, at int) {
		s, link := fuzzSession(mining)
		at = min(max(at, 0), len(in))
		for _, part := range [][]byte{in[:at], in[at:]} {
			if len(part) > 0 && s.reads() {
				s.loop.begin()
				s.receive(part)
				link.sent = append(link.sent, s.loop.out...)
			}
		}
		wantLines(t, link.sent)
	})
}

// FuzzServer is the same for servers.
func FuzzServer(f *testing.F) {
	f.Add([]byte(notifyLine("1", false)+"\n"+`{"id":3,"result":[[],"f0000001",8],"error":null}`+"\n"+`{"id":4,"result":true,"error":null}`+"\n"), 30)
	f.Add([]byte(`{"id":4,"result":false,"error":[24,"x",null]}`+"\n"+`{"id":16,"result":true}`+"\n"), 3)
	f.Add([]byte(`{"id":null,"method":"mining.set_extranonce","params":["00",4]}`+"\n"+`{"method":"client.reconnect","params":[]}`+"\n"), 3)
	f.Fuzz(func(t *testing.T, in []byte, at int) {
		at = min(max(at, 0), len(in))
		for _, p := range []phase{joining, mining} {
			s, link := fuzzSession(p)
			u := s.now
			if p == joining {
				s.now, s.next = nil, u
			}
			for _, part := range [][]byte{in[:at], in[at:]} {
				if len(part) > 0 && !u.over && u.session != nil {
					s.loop.begin()
					u.receive(part)
					link.sent = append(link.sent, s.loop.out...)
				}
			}
			wantLines(t, link.sent)
		}
	})
}

func wantLines(t *testing.T, sent []byte) {
	t.Helper()
	for line := range strings.Lines(string(sent)) {
		if !strings.HasSuffix(line, "\n") || !json.Valid([]byte(line)) {
			t.Fatalf("the miner is sent %q", line)
		}
	}
}
