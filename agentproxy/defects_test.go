package agentproxy

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/agentwire"
	"btcpool/internal/bitcoin"
	"btcpool/internal/config"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

// What other farm proxies get wrong: docs/farm-proof.md has the list.

// A pool that has no more to say than its first job, for longer than logging in may take, keeps its link.
func TestQuietAfterLogin(t *testing.T) {
	t.Parallel()
	_, l, s, r := farm(t, func(c *Config) { c.DialTimeout = config.Duration(5 * time.Second) })
	testkit.Eventually(t, "the time of logging in is over", func() (over bool) {
		s.onLoop(t, func() {
			for link := range s.accounts[""].links {
				over = s.now.Sub(link.began) > 3*s.cfg.DialTimeout.Std()/2
			}
		})
		return over
	})
	l.say(notify("1", false))
	if line := r.hear(); !strings.Contains(line, `"params":["1",`) {
		t.Errorf("heard %s", line)
	}
}

// Whatever a pool says costs its link at most, and the machine goes on by the next one.
func TestHostilePools(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct {
		text string
		ends bool
	}{
		"null":               {"null\n", true},
		"no object":          {"[]\n", true},
		"empty object":       {"{}\n", false},
		"an endless line":    {strings.Repeat("x", 2*maxPoolLine), true},
		"a frame of 3 bytes": {"\x7f\x10\x03\x00", true},
		"frames of nothing":  {"\x7f\x05\x04\x00\x7f\x10\x04\x00\x7f\x77\x04\x00", false},
		"a share":            {"\x7f\x02\x0f\x00" + strings.Repeat("a", 11), false},
		"difficulty of none": {string(agentwire.SetDifficulty{Difficulty: 3, Sessions: []agentwire.Session{5, 0xFFFE}}.AppendTo(nil)), false},
		"half a job":         {`{"id":null,"method":"mining.notify","params":["1","00"]}` + "\n", true},
		"job 256":            {notify("256", false), true},
		"strange params":     {`{"id":null,"method":"mining.set_version_mask","params":[{}]}` + "\n", false},
		"no such method":     {`{"id":9,"method":"mining.x","params":null}` + "\n", false},
		"a small extranonce": {`{"id":null,"method":"mining.set_extranonce","params":["aa",2]}` + "\n", true},
		"go away":            {`{"id":null,"method":"client.reconnect","params":["evil.example.org",1]}` + "\n", true},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p, l, s, r := farm(t, nil)
			l.say(test.text)
			if test.ends {
				p.login().hear() // register
			} else {
				l.say(notify("9", true))
			}
			if line := r.hear(); !strings.Contains(line, `"mining.notify"`) {
				t.Errorf("heard %s", line)
			}
			s.onLoop(t, func() {
				if len(s.miners) != 1 || s.miners[0].link == nil {
					t.Error("the machine has no link")
				}
			})
		})
	}
}

// Jobs come in their order, and each after its difficulty, however fast they follow each other.
func TestOrder(t *testing.T) {
	t.Parallel()
	_, l, _, r := farm(t, nil)
	const jobs = 200
	var all strings.Builder
	for i := range jobs {
		all.Write(agentwire.SetDifficulty{Difficulty: bitcoin.Difficulty(i % 40), Sessions: []agentwire.Session{0}}.AppendTo(nil))
		all.WriteString(notify(fmt.Sprint((i+1)%256), false))
	}
	l.say(all.String())
	for i := range jobs {
		r.want(fmt.Sprintf(`{"id":null,"method":"mining.set_difficulty","params":[%d]}`, uint64(1)<<(i%40)))
		if line := r.hear(); !strings.Contains(line, fmt.Sprintf(`"params":["%d",`, i+1)) {
			t.Fatalf("instead of job %d: %s", i+1, line)
		}
	}
}

// However long a machine's names are, it is registered: a pool passes over frames of more than 100 bytes.
func TestLongNames(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	s := proxyOf(t, nil, p)
	l := p.login()
	r := dial(t, s)
	r.say(`{"id":1,"method":"mining.subscribe","params":["` + strings.Repeat("a", 200) + `"]}`)
	r.hear()
	r.say(`{"id":2,"method":"mining.authorize","params":["farm.` + strings.Repeat("w", 200) + `","x"]}`)
	want := agentwire.Register{Session: 0, Agent: strings.Repeat("a", 30), Worker: strings.Repeat("w", 20)}.AppendTo(nil)
	l.want(hex.EncodeToString(want))
}

// A verdict that does not come is not waited for, and does not shift the others: the link is begun anew.
func TestVerdictThatNeverComes(t *testing.T) {
	t.Parallel()
	p, l, s, r := farm(t, nil)
	r.say(`{"id":4,"method":"mining.submit","params":["a.b","0","00000001","65000000","b2957c02"]}`)
	l.hear()
	s.onLoop(t, func() {
		for link := range s.accounts[""].links {
			for i, q := range link.questions {
				q.at = q.at.Add(-verdictPatience)
				link.questions[i] = q
			}
		}
	})
	r.want(`{"id":4,"result":null,"error":[2147483647,"Unknown",null]}`)
	l = p.login()
	l.hear() // register
	r.hear() // the job
	r.say(`{"id":5,"method":"mining.submit","params":["a.b","1","00000001","65000000","b2957c02"]}`)
	l.hear()
	l.say(string(agentwire.SubmitResponse{Index: 0, Status: share.StatusAccept}.AppendTo(nil)))
	r.want(`{"id":5,"result":true,"error":null}`)
}

// Every mining.configure is answered, and the mask of a pool without version rolling is none.
func TestPoolWithoutVersionRolling(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	s := proxyOf(t, nil, p)
	l := p.accept()
	l.hear()
	l.say(`{"id":"conn_test","result":{"capabilities":["subres"]}}` + "\n")
	for range 4 {
		l.hear()
	}
	l.say(strings.ReplaceAll(loggedInAs, `"verrol",`, "") + notify("0", true))
	l.hear() // capabilities again
	l.say(`{"id":"caps_again","result":{"capabilities":["subres"]}}` + "\n")

	silent := dial(t, s)
	silent.say(`{"id":7,"method":"mining.configure","params":[["minimum-difficulty"],{}]}`)
	if line := silent.hear(); !strings.Contains(line, `"id":7,"result":`) {
		t.Errorf("heard %s", line)
	}
	r := dial(t, s)
	testkit.Eventually(t, "the link is up", func() bool { return s.Ready() == nil })
	r.say(`{"id":1,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"ffffffff"}]}`)
	r.want(`{"id":1,"result":{"version-rolling":false},"error":null}`)
}

// Strangers who connect and say nothing hold none of the numbers that machines need.
func TestStrangersTakeNoNumbers(t *testing.T) {
	t.Parallel()
	_, _, s, _ := farm(t, nil)
	for range 20 {
		dial(t, s)
	}
	testkit.Eventually(t, "all are there", func() (all bool) {
		s.onLoop(t, func() {
			all = len(s.miners) == 21
			if s.numbers.used != 1 {
				t.Errorf("%d numbers are used", s.numbers.used)
			}
		})
		return all
	})
}

// Machines may connect and log in before there is a pool, and mine as soon as there is.
func TestMachinesBeforeThePool(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	s := proxyOf(t, nil, p)
	r := dial(t, s)
	r.say(`{"id":1,"method":"mining.subscribe","params":["cgminer/4"]}`)
	r.hear()
	r.say(`{"id":2,"method":"mining.authorize","params":["a.early","x"]}`)
	r.want(`{"id":2,"result":true,"error":null}`)
	if err := s.Ready(); err == nil {
		t.Error("ready without a pool")
	}
	p.login()
	r.want(`{"id":null,"method":"mining.set_difficulty","params":[16384]}`)
	if line := r.hear(); !strings.Contains(line, "mining.notify") {
		t.Errorf("heard %s", line)
	}
}

// Pools are reached by proxies of every kind, or past those that are broken.
func TestOutboundProxies(t *testing.T) {
	t.Parallel()
	gone := testkit.FreeAddr(t)
	for name, test := range map[string]struct {
		urls   func(addr string) []string
		direct Direct
		used   bool
	}{
		"http":    {func(a string) []string { return []string{"http://user:secret@" + a} }, DirectNever, true},
		"socks5":  {func(a string) []string { return []string{"socks5://user:secret@" + a} }, DirectNever, true},
		"fastest": {func(a string) []string { return []string{"socks5://" + gone, "http://user:secret@" + a} }, DirectNever, true},
		"direct":  {func(string) []string { return []string{"http://" + gone} }, DirectAfter, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newFakePool(t)
			by := outboundProxy(t)
			s := proxyOf(t, func(c *Config) { c.Proxy.URLs, c.Proxy.Direct = test.urls(by), test.direct }, p)
			p.login()
			var via string
			testkit.Eventually(t, "the link is up", func() (up bool) {
				s.onLoop(t, func() {
					for link := range s.accounts[""].links {
						up, via = link.up(), link.via
					}
				})
				return up
			})
			if strings.Contains(via, by) != test.used || strings.Contains(via, "secret") {
				t.Errorf("by %q", via)
			}
		})
	}
}

// outboundProxy is a proxy for user:secret that speaks HTTP and SOCKS5.
func outboundProxy(t *testing.T) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				target, answer := "", ""
				if first, err := r.Peek(1); err == nil && first[0] == 5 {
					target, answer = socks5(conn, r)
				} else if req, err := http.ReadRequest(r); err == nil && req.Header.Get("Proxy-Authorization") == "Basic dXNlcjpzZWNyZXQ=" {
					target, answer = req.Host, "HTTP/1.1 200 OK\r\n\r\n"
				}
				far, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				defer far.Close()
				_, _ = io.WriteString(conn, answer)
				go func() { _, _ = io.Copy(far, r); far.Close() }()
				_, _ = io.Copy(conn, far)
			}()
		}
	}()
	return ln.Addr().String()
}

// socks5 is the server's side up to the request (RFC 1928 and 1929).
func socks5(conn net.Conn, r *bufio.Reader) (target, answer string) {
	take := func(n int) []byte {
		b := make([]byte, n)
		_, _ = io.ReadFull(r, b)
		return b
	}
	take(int(take(2)[1]))
	_, _ = conn.Write([]byte{5, 2})
	user := string(take(int(take(2)[1])))
	password := string(take(int(take(1)[0])))
	if user != "user" || password != "secret" {
		return "", ""
	}
	_, _ = conn.Write([]byte{1, 0})
	switch head := take(4); head[3] {
	case 1:
		target = net.IP(take(4)).String()
	case 3:
		target = string(take(int(take(1)[0])))
	}
	port := take(2)
	return fmt.Sprintf("%s:%d", target, int(port[0])<<8|int(port[1])), "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
}

// A machine that wishes for a difficulty, or for what it may not know about, is answered, each request once.
func TestEveryRequestIsAnswered(t *testing.T) {
	t.Parallel()
	_, _, _, r := farm(t, nil)
	for i, method := range []string{
		"mining.suggest_difficulty", "mining.suggest_target", "mining.multi_version", "mining.extranonce.subscribe",
		"mining.get_transactions", "mining.subscribe", "mining.authorize", "no.such", "mining.submit", "mining.ping",
	} {
		r.say(fmt.Sprintf(`{"id":%d,"method":%q,"params":[]}`, 100+i, method))
		if line := r.hear(); !strings.HasPrefix(line, fmt.Sprintf(`{"id":%d,`, 100+i)) {
			t.Errorf("%s: heard %s", method, line)
		}
	}
	r.say(`{"id":200,"method":"mining.ping","params":[]}`)
	if diff := cmp.Diff(`{"id":200,"result":"pong","error":null}`, r.hear()); diff != "" {
		t.Error(diff)
	}
}
