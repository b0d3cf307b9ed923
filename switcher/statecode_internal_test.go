package switcher

import (
	"reflect"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/upgrade"
	"btcpool/internal/upgrade/upgradetest"
)

// left are the fields that do not pass to another process, and why.
var left = upgradetest.Left{
	reflect.TypeFor[Service](): {
		"cfg": "the configuration", "mask": "the configuration", "maxConnections": "the configuration",
		"log": "the process' own", "metrics": "the process' own", "closing": "the process' own", "started": "the process' own",
		"registry": "the process' own", "dials": "the process' own", "goroutines": "the process' own", "serving": "the process' own",
		"stopServing": "the process' own", "acceptLog": "the process' own", "chainLog": "the process' own", "switchLog": "the process' own",
		"loops": "the process' own, their sessions pass", "ports": "sockets", "status": "a socket",
		"users": "what is known of them: chainwatch", "spellings": "TestSpellingsPass", "registrations": "asked for again",
		"chains": "what is known of servers: TestServerPasses", "guard": "its Memories, and bans by their file", "ids": "TestIDsPass",
		"open": "counted again", "before": "of the hand-over", "lease": "by an Heir", "running": "of the hand-over",
		"moving": "of the hand-over", "gate": "of the hand-over", "gone": "of the hand-over", "relays": "of the hand-over",
	},
	reflect.TypeFor[loop](): {
		"Loop": "the process' own", "srv": "the process' own", "sessions": "they pass", "users": "made again by sessions",
		"due": "made again by sessions", "left": "the old process says good-bye to them", "now": "the clock", "toCheck": "begins anew",
		"leaving": "never", "in": "scratch", "out": "scratch", "up": "scratch",
	},
	reflect.TypeFor[session](): {
		"srv": "the process' own", "loop": "the process' own", "link": "a socket", "pos": "its place", "to": "by Chain",
		"closing": "never of one that passes", "cut": "never of one that passes", "over": "never of one that passes",
		"lingering": "never of one that passes", "discard": "never of one that passes", "why": "never of one that passes",
	},
	reflect.TypeFor[upstream](): {
		"session": "whose it is", "loop": "the process' own", "link": "a socket", "cancel": "nothing is being reached",
		"broken": "never of one that passes", "over": "never of one that passes",
	},
	reflect.TypeFor[server](): {"Server": "the configuration", "up": "by err", "mu": "a lock", "pauses": "from the first one on again", "former": "the configuration"},
	reflect.TypeFor[idPool](): {"mu": "a lock"},
}

// fullSession is a session with a thing of each kind.
func fullSession() *session {
	srv := fuzzService()
	c := srv.chains[0]
	s := &session{srv: srv}
	u := new(upstream)
	f := upgradetest.Fields{Left: left, Known: map[reflect.Type]reflect.Value{}}
	for _, v := range []any{c, c.servers[0], u} {
		f.Known[reflect.TypeOf(v)] = reflect.ValueOf(v)
	}
	f.Struct(reflect.ValueOf(s).Elem())
	s.Phase, s.Chain, s.to = mining, c.Name, c
	of := func() *upstream {
		u := &upstream{session: s, link: new(deaf)}
		f.Struct(reflect.ValueOf(u).Elem())
		u.next += firstNumber
		for n, q := range u.questions {
			q.kind = askedAuthorize
			u.questions[n] = q
		}
		return u
	}
	s.now, s.next, s.past = of(), of(), []*upstream{of()}
	return s
}

func written(t testing.TB, code func(*upgrade.Codec)) []byte {
	t.Helper()
	w := upgrade.NewWriter(stateVersion, upgradetest.Moment, nil)
	if code(w); w.Err() != nil {
		t.Fatal(w.Err())
	}
	return w.Bytes()
}

func readBack(t testing.TB, text []byte, code func(*upgrade.Codec)) {
	t.Helper()
	r := upgrade.NewReader(stateVersion, upgradetest.Moment, text)
	if code(r); r.Err() != nil || r.Left() != 0 {
		t.Fatal(r.Err(), r.Left())
	}
}

// same compares field by field what passes.
func same(t *testing.T, want, got any) {
	t.Helper()
	for _, v := range []any{want, got} {
		left.Strip("btcpool/switcher", reflect.ValueOf(v), map[unsafe.Pointer]bool{})
	}
	w, g := reflect.ValueOf(want).Elem(), reflect.ValueOf(got).Elem()
	for i := range w.NumField() {
		if a, b := upgradetest.Field(w, i).Interface(), upgradetest.Field(g, i).Interface(); !reflect.DeepEqual(a, b) {
			t.Errorf("%s.%s: wrote %+v, read %+v", w.Type(), w.Type().Field(i).Name, a, b)
		}
	}
}

// Whatever a session knows arrives in the other process: a field that is new fails here until it is coded, or it is said
// why it is left.
func TestStateCode(t *testing.T) {
	t.Parallel()
	if missing := left.Missing(); len(missing) > 0 {
		t.Errorf("there are no fields %q", missing)
	}
	for of, fields := range left {
		if of == reflect.TypeFor[Service]() || of == reflect.TypeFor[loop]() {
			for i := range of.NumField() {
				if name := of.Field(i).Name; fields[name] == "" {
					t.Errorf("what becomes of %s.%s?", of, name)
				}
			}
		}
	}
	s := fullSession()
	got := &session{srv: s.srv}
	readBack(t, written(t, s.code), got.code)
	want := map[*upstream]*upstream{s.now: got.now, s.next: got.next, s.past[0]: got.past[0]}
	for a, b := range want {
		if b.chain != a.chain || b.server != a.server || b.session != got {
			t.Errorf("a server of %v, %v", b.chain, b.server)
		}
		a.chain, b.chain, a.server, b.server = nil, nil, nil, nil // of the service
		same(t, a, b)
	}
	if got.to != s.to || got.counted != s.counted || got.lastChain != s.lastChain || got.avoid != s.avoid {
		t.Errorf("chains %v, %v, %v, avoid %v", got.to, got.counted, got.lastChain, got.avoid)
	}
	for _, v := range []*session{s, got} {
		v.counted, v.lastChain, v.avoid = nil, nil, nil
		v.now, v.next, v.past = nil, nil, nil
	}
	same(t, s, got)
}

// A server that is being reached is none: it is reached again at once.
func TestDialPasses(t *testing.T) {
	t.Parallel()
	s := fullSession()
	s.next.link, s.retryAt = nil, time.Time{}
	got := &session{srv: s.srv}
	readBack(t, written(t, s.code), got.code)
	if got.next != nil || !got.retryAt.Equal(upgradetest.Moment) || got.now == nil {
		t.Errorf("next %v, again at %s", got.next, got.retryAt)
	}
}

// An extranonce that is nothing, and inside the server's, is not one that is told.
func TestEmptyExtraNoncePasses(t *testing.T) {
	t.Parallel()
	s := fullSession()
	s.now.ext.ExtraNonce2, s.now.ext.Coinbase1 = []byte{}, nil
	got := &session{srv: s.srv}
	readBack(t, written(t, s.code), got.code)
	if !got.now.inside() {
		t.Error("outside")
	}
}

// Ids at rest stay so.
func TestIDsPass(t *testing.T) {
	t.Parallel()
	now := upgradetest.Moment
	p, other := &idPool{server: 3}, &idPool{}
	for range 5 {
		p.get(now)
	}
	p.put(3<<24|firstID+1, now)
	readBack(t, written(t, p.code), other.code)
	same(t, p, other)
	if id, _ := other.get(now.Add(idRest)); id != 3<<24|firstID+1 {
		t.Errorf("id %08x is given", id)
	}
}

// What is known of a server is known afterwards.
func TestServerPasses(t *testing.T) {
	t.Parallel()
	one := newServer(Server{Addr: "a:1"}, prometheus.NewGauge(prometheus.GaugeOpts{}))
	f := upgradetest.Fields{Left: left}
	mask := reflect.TypeOf(&one.mask).Elem()
	f.Known = map[reflect.Type]reflect.Value{mask: reflect.New(mask).Elem()}
	f.Struct(reflect.ValueOf(one).Elem())
	one.mask.Store(77)
	other := newServer(Server{Addr: "a:1"}, prometheus.NewGauge(prometheus.GaugeOpts{}))
	v := one.carry("btc")
	var got serverState
	readBack(t, written(t, v.code), got.code)
	if v != got {
		t.Errorf("wrote %+v, read %+v", v, got)
	}
	other.adopt(got)
	if other.fault() == nil || other.fault().Error() != one.fault().Error() || other.mask.Load() != 77 ||
		!other.since.Equal(one.since) || !other.until.Equal(one.until) {
		t.Errorf("%+v of %+v", other, one)
	}
}

// How users' names are written is known afterwards.
func TestSpellingsPass(t *testing.T) {
	t.Parallel()
	one, other := &spellings{byLower: map[string]string{"alice": "Alice"}}, &spellings{byLower: map[string]string{}}
	v, got := shared{ids: new(idPool), spelt: one.all()}, shared{ids: new(idPool)}
	readBack(t, written(t, v.code), got.code)
	if other.learn(got.spelt); other.byLower["alice"] != "Alice" {
		t.Errorf("%q", other.byLower)
	}
}

// Whatever is said of a session is refused, or is one that can be said again.
func FuzzStateCode(f *testing.F) {
	f.Add(written(f, fullSession().code))
	f.Fuzz(func(t *testing.T, in []byte) {
		got := &session{srv: fuzzService()}
		r := upgrade.NewReader(stateVersion, upgradetest.Moment, in)
		if got.code(r); r.Err() != nil {
			return
		}
		for u := range got.servers {
			u.link = new(deaf)
		}
		again := &session{srv: got.srv}
		readBack(t, written(t, got.code), again.code)
		for u := range again.servers {
			if u.fit(); u.server == nil || u.chain == nil {
				t.Fatal("a server of nobody")
			}
		}
	})
}
