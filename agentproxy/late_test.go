package agentproxy

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"btcpool/internal/agentwire"
	"btcpool/internal/config"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

const withSessions = `{"id":"conn_test","result":{"capabilities":["verrol","subres","session"]}}` + "\n"

// sessionLogin is login of a pool with sessions, which gives the link an extranonce1. It returns what the link said to
// subscribe.
func (p *fakePool) sessionLogin(extraNonce1, job string) (l *fakeLink, subscribe string) {
	p.t.Helper()
	l = p.accept()
	l.hear()
	l.say(withSessions)
	l.hear() // capabilities
	l.hear() // configure
	subscribe = l.hear()
	l.hear() // authorize
	l.say(strings.ReplaceAll(strings.ReplaceAll(loggedInAs, `"subres"]`, `"subres","session"]`), "01a2b3c4", extraNonce1) + notify(job, true))
	l.hear() // capabilities again
	return l, subscribe
}

// sessionFarm is farm with a pool that has sessions.
func sessionFarm(t *testing.T, change func(*Config)) (p *fakePool, l *fakeLink, s *Service, r *rig) {
	t.Helper()
	p = newFakePool(t)
	s = proxyOf(t, func(c *Config) {
		c.Pools[0].NoExtensions = false
		if change != nil {
			change(c)
		}
	}, p)
	l, subscribe := p.sessionLogin("01a2b3c4", "7")
	if !strings.HasSuffix(subscribe, `"mining.subscribe","params":["btccom-agent/3.0.0-mu"]}`) {
		t.Errorf("a first link says %s", subscribe)
	}
	r = dial(t, s)
	r.login("a.rig1")
	l.hear() // register
	return p, l, s, r
}

// breaks ends a link, and waits until that is known.
func (l *fakeLink) breaks(s *Service) {
	l.t.Helper()
	l.conn.Close()
	testkit.Eventually(l.t, "the link is lost", func() bool { return s.counter(l.t, "links_lost_total") == 1 })
}

const (
	share4 = `{"id":4,"method":"mining.submit","params":["a.b","0","00000001","65000000","b2957c02"]}`
	share5 = `{"id":5,"method":"mining.submit","params":["a.b","0","00000002","65000000","b2957c02"]}`
	frame4 = "7f020f00" + "07" + "0000" + "01000000" + "027c95b2"
	frame5 = "7f020f00" + "07" + "0000" + "02000000" + "027c95b2"
)

// verdict answers to a share of the link.
func (l *fakeLink) verdict(index uint16, status share.Status) {
	l.t.Helper()
	l.say(string(agentwire.SubmitResponse{Index: index, Status: status}.AppendTo(nil)))
}

// wantAnswers waits for these answers among what else is said.
func (r *rig) wantAnswers(lines ...string) {
	r.t.Helper()
	for len(lines) > 0 {
		if line := r.hear(); line == lines[0] {
			lines = lines[1:]
		} else if !strings.Contains(line, `"method"`) {
			r.t.Fatalf("heard %s, want %s", line, lines[0])
		}
	}
}

// Another link goes on with one that broke: what was found meanwhile is delivered, what was under way is sent again, and
// the pool's having had it is as good as its taking it.
func TestGoesOn(t *testing.T) {
	t.Parallel()
	p, l, s, r := sessionFarm(t, nil)
	r.say(share4)
	l.want(frame4)
	l.breaks(s)
	r.say(share5)
	testkit.Eventually(t, "both are held", func() bool { return s.counter(t, "shares_held_total") == 2 })
	l, subscribe := p.sessionLogin("01a2b3c4", "8")
	if !strings.HasSuffix(subscribe, `"mining.subscribe","params":["btccom-agent/3.0.0-mu","01a2b3c4"]}`) {
		t.Errorf("the second link says %s", subscribe)
	}
	l.hear() // register
	l.want(frame4, frame5)
	l.verdict(0, share.StatusDuplicate)
	l.verdict(1, share.StatusAccept)
	r.wantAnswers(`{"id":4,"result":true,"error":null}`, `{"id":5,"result":true,"error":null}`)
	// One for the same job that comes later goes there, too.
	r.say(`{"id":6,"method":"mining.submit","params":["a.b","0","00000003","65000000","b2957c02"]}`)
	l.want("7f020f00" + "07" + "0000" + "03000000" + "027c95b2")
	l.verdict(2, share.StatusDuplicate)
	r.want(`{"id":6,"result":null,"error":[22,"Duplicate share",null]}`)
	if ok, said := s.counter(t, "verdicts_total", "status", "0"), s.counter(t, "answers_total", "status", "0"); ok != 2 || said != 2 {
		t.Errorf("%v accepted, %v answers that say so", ok, said)
	}
}

// Where the pool has told a key, the session is ended there before it is asked for: the pool may not know that the link has
// broken.
func TestEndsSession(t *testing.T) {
	t.Parallel()
	p, l, s, r := sessionFarm(t, nil)
	l.say(`{"id":"caps_again","result":{"capabilities":["verrol","subres","session"],"session_key":"0123456789abcdef"}}` + "\n")
	r.say(share4)
	l.want(frame4)
	l.verdict(0, share.StatusAccept)
	r.wantAnswers(`{"id":4,"result":true,"error":null}`)
	l.breaks(s)
	next := p.accept()
	next.hear()
	next.say(withSessions)
	next.hear() // capabilities
	next.hear() // configure
	next.want(
		`{"id":"end","method":"agent.end_session","params":["01a2b3c4","0123456789abcdef"]}`,
		`{"id":"sub","method":"mining.subscribe","params":["btccom-agent/3.0.0-mu","01a2b3c4"]}`,
	)
}

// Without pool_verdicts, too, a share is good only when it has been sent.
func TestGoesOnAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	p, l, s, r := sessionFarm(t, func(c *Config) { c.PoolVerdicts = false })
	r.say(share4)
	r.want(`{"id":4,"result":true,"error":null}`)
	l.want(frame4)
	l.breaks(s)
	r.say(share5)
	r.say(`{"id":9,"method":"mining.ping","params":[]}`)
	r.want(`{"id":9,"result":"pong","error":null}`)
	l, _ = p.sessionLogin("01a2b3c4", "8")
	l.hear() // register
	l.want(frame5)
	r.wantAnswers(`{"id":5,"result":true,"error":null}`)
}

// A pool that has forgotten the session gets nothing of it, and machines are told.
func TestSessionForgotten(t *testing.T) {
	t.Parallel()
	p, l, s, r := sessionFarm(t, nil)
	r.say(share4)
	l.want(frame4)
	l.breaks(s)
	r.say(share5)
	testkit.Eventually(t, "both are held", func() bool { return s.counter(t, "shares_held_total") == 2 })
	p.sessionLogin("0badf00d", "8")
	r.wantAnswers(`{"id":4,"result":null,"error":[2147483647,"Unknown",null]}`, `{"id":5,"result":null,"error":[21,"Job not found (=stale)",null]}`)
	if got := s.counter(t, "shares_lost_total", "reason", "link lost"); got != 2 {
		t.Errorf("%v are counted", got)
	}
}

// What is held is bounded in number and in age.
func TestHeldShares(t *testing.T) {
	t.Parallel()
	_, l, s, r := sessionFarm(t, nil)
	l.breaks(s)
	s.onLoop(t, func() { s.held += maxHeld })
	r.say(share4)
	r.want(`{"id":4,"result":null,"error":[21,"Job not found (=stale)",null]}`)
	s.onLoop(t, func() { s.held -= maxHeld })
	r.say(share5)
	testkit.Eventually(t, "it is held", func() bool { return s.counter(t, "shares_held_total") == 1 })
	s.onLoop(t, func() {
		for _, b := range s.accounts[""].broken {
			b.brokeAt = b.brokeAt.Add(-heldFor)
		}
	})
	r.want(`{"id":5,"result":null,"error":[21,"Job not found (=stale)",null]}`)
	s.onLoop(t, func() {
		if s.held != 0 || len(s.accounts[""].broken) != 0 {
			t.Errorf("%d are held", s.held)
		}
	})
}

// A pool of plain Stratum V1 that gives the same extranonce1 again gets what was found meanwhile. Whether it knows shares
// that it has had nobody can say.
func TestPlainGoesOn(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	s := proxyOf(t, func(c *Config) { c.Pools[0].Protocol = ProtocolStratum }, p)
	l := p.plainLogin("aabbccdd", 1)
	r := dial(t, s)
	r.login("a.rig1")
	l.hear() // the worker
	l.say(`{"id":"worker","result":true,"error":null}` + "\n")
	r.say(share4)
	l.hear()
	l.breaks(s)
	r.want(`{"id":4,"result":null,"error":[2147483647,"Unknown",null]}`)
	r.say(share5)
	testkit.Eventually(t, "it is held", func() bool { return s.counter(t, "shares_held_total") == 1 })
	l = p.accept()
	l.hear() // configure
	if line := l.hear(); !strings.HasSuffix(line, `,"s-aabbccdd"]}`) {
		t.Errorf("the second link says %s", line)
	}
	l.hear() // authorize
	l.say(plainAnswers("aabbccdd", 1) + notify("x-2", true))
	l.hear() // the worker
	l.want(`{"id":0,"method":"mining.submit","params":["farm.rig1","x-1","0000000000000002","65000000","b2957c02"]}`)
	l.say(`{"id":0,"result":true,"error":null}` + "\n")
	r.wantAnswers(`{"id":5,"result":true,"error":null}`)
}

// A share for a job of a pool that its machine was moved away from goes to that pool, which is let go only then.
func TestMovedWithShares(t *testing.T) {
	t.Parallel()
	first, second := newFakePool(t), newFakePool(t)
	s := proxyOf(t, func(c *Config) { c.ReturnInterval = config.Duration(time.Second) }, first, second)
	first.accept().conn.Close()
	old := second.login()
	r := dial(t, s)
	r.login("a.rig1")
	old.hear() // register
	l := first.login()
	l.hear() // register
	r.hear() // the job
	r.say(`{"id":4,"method":"mining.submit","params":["a.b","0","00000001","65000000","b2957c02"]}`)
	old.want("7f020f00" + "00" + "0000" + "01000000" + "027c95b2")
	old.verdict(0, share.StatusAccept)
	r.want(`{"id":4,"result":true,"error":null}`)
	r.say(`{"id":5,"method":"mining.submit","params":["a.b","1","00000002","65000000","b2957c02"]}`)
	l.want("7f020f00" + "00" + "0000" + "02000000" + "027c95b2")
	s.guestsHaveBeen(t)
	if line, err := old.r.ReadString('\n'); err == nil {
		t.Errorf("the old link hears %s", line)
	}
	r.conn.Close()
	l.want("7f0406000000")
}

// A machine that comes back to a link that it left a moment ago has the difficulty that it had there.
func TestMovedBack(t *testing.T) {
	t.Parallel()
	_, l, s, r := farm(t, nil)
	s.onLoop(t, func() {
		m := s.miners[0]
		m.link.keep(m)
	})
	l.say(string(agentwire.SetDifficulty{Difficulty: 15, Sessions: []agentwire.Session{0}}.AppendTo(nil)) + notify("1", false))
	testkit.Eventually(t, "the job has come", func() (came bool) {
		s.onLoop(t, func() {
			for link := range s.accounts[""].links {
				came = link.work.number == 1
			}
		})
		return came
	})
	s.onLoop(t, func() {
		for link := range s.accounts[""].links {
			link.take(s.miners[0])
			if len(link.guests) != 0 || len(link.miners) != 1 {
				t.Errorf("%d guests, %d miners", len(link.guests), len(link.miners))
			}
		}
	})
	r.want(`{"id":null,"method":"mining.set_difficulty","params":[32768]}`)
	r.conn.Close()
	l.want("7f0406000000") // registered once, let go once
}

// A machine that has gone on elsewhere when its link broke is a guest on the link that goes on with that, for its last
// shares.
func TestGoesOnForGuest(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	s := proxyOf(t, func(c *Config) {
		c.Pools[0].NoExtensions = false
		c.Links = 2
	}, p)
	old, _ := p.sessionLogin("01a2b3c4", "7")
	r := dial(t, s)
	r.login("a.rig1")
	old.hear() // register
	other, _ := p.sessionLogin("0badf00d", "9")
	testkit.Eventually(t, "both links are up", func() bool { return s.counter(t, "links") == 2 })
	old.breaks(s)
	other.hear() // register
	r.hear()     // the job
	r.say(share4)
	l, subscribe := p.sessionLogin("01a2b3c4", "8")
	if !strings.HasSuffix(subscribe, `,"01a2b3c4"]}`) {
		t.Errorf("the third link says %s", subscribe)
	}
	l.want("7f011500"+"0000"+hex.EncodeToString([]byte("cgminer/4\x00rig1\x00")), frame4)
	l.verdict(0, share.StatusAccept)
	r.want(`{"id":4,"result":true,"error":null}`)
	r.conn.Close()
	l.want("7f0406000000")
	other.want("7f0406000000")
}
