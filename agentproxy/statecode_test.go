package agentproxy

import (
	"reflect"
	"slices"
	"testing"
	"unsafe"

	"github.com/cenkalti/backoff/v5"

	"btcpool/internal/job"
	"btcpool/internal/retry"
	"btcpool/internal/upgrade"
	"btcpool/internal/upgrade/upgradetest"
)

var moment = upgradetest.Moment

// left are the fields that do not pass to another process, and why.
var left = upgradetest.Left{
	reflect.TypeFor[Service](): {
		"log": "the process' own", "metrics": "the process' own", "closing": "the process' own", "loop": "the process' own",
		"ports": "sockets", "page": "a socket", "goroutines": "the process' own", "started": "the process' own",
		"most": "the configuration", "pageAddr": "the configuration", "multiUser": "the configuration", "cfg": "the configuration",
		"routes": "the configuration", "dialer": "but for what it knows of pools: TestKnownPools",
		"view": "looked at again", "fault": "seen again", "before": "of the hand-over", "serving": "of the hand-over",
		"moving": "of the hand-over", "relayed": "of the hand-over", "now": "the clock", "miners": "a table", "accounts": "a table",
		"numbers": "taken: those of miners; next: looked at beside", "relays": "counted again", "sweep": "begins anew",
		"leaving": "never", "checker": "seen: TestSeenPasses", "held": "counted again", "silent": "counted again",
		"out": "scratch", "in": "scratch", "shunned": "looked at beside",
	},
	reflect.TypeFor[account](): {
		"svc": "the process' own", "links": "they say whose they are", "miners": "they say whose they are",
		"balanced": "as after a new configuration", "off": "as after a new configuration",
	},
	reflect.TypeFor[goal](): {
		"weight": "the configuration", "plan": "but for what it is known by", "miners": "counted again", "load": "counted again",
	},
	reflect.TypeFor[slot](): {
		"log": "the process' own", "changed": "the process' own", "cancel": "the process' own", "ended": "has no goal",
		"first": "seen from its links", "complaints": "said again",
	},
	reflect.TypeFor[link](): {
		"conn": "a socket", "ready": "those that are not are none", "ended": "so have those that are over", "why": "nobody asks any more",
		"miners": "they say where they are", "before": "only of those that are not ready", "follower": "is made again",
		"batch": "flushed", "rows": "flushed", "holding": "flushed", "flushing": "flushed", "blind": "flushed",
	},
	reflect.TypeFor[work](): {
		"target": "follows from whole", "job": "follows from whole", "time": "follows from whole",
	},
	reflect.TypeFor[miner]():    {"svc": "the process' own", "conn": "a socket", "pos": "its place"},
	reflect.TypeFor[relay]():    {"cancel": "the process' own", "line": "a socket"},
	reflect.TypeFor[fewLines](): {"what": "the program's"},
	reflect.TypeFor[shun]():     {"pauses": "from the first one on again"},
	reflect.TypeFor[job.StratumJob](): {
		"ID": "not of minersJob", "GBTHash": "not of minersJob", "Height": "not of minersJob", "MinTime": "not of minersJob",
		"CoinbaseValue": "not of minersJob", "WitnessCommitment": "not of minersJob", "MergedMiningClean": "not of minersJob",
		"Left": "not of minersJob", "GrandCoinbase1": "not of minersJob", "SubPools": "not of minersJob", "Proxy": "not of minersJob",
		"Aux": "not of minersJob", "RSK": "not of minersJob", "VCash": "not of minersJob",
	},
}

func bareService() *Service {
	s := &Service{dialer: newDialer(DefaultConfig()), accounts: make(map[string]*account)}
	s.silences.what, s.returns.what = "a", "b"
	return s
}

// fullState is a proxy with a thing of each kind, all of which refers to all else.
func fullState() (s *Service, t *carried) {
	s = bareService()
	a, l, w, m := s.bareAccount(), bareLink(), new(work), &miner{svc: s}
	broken := bareLink()
	g := &goal{acct: a}
	g.plan.Store(new(plan))
	sl := new(slot)
	f := upgradetest.Fields{Left: left, Known: map[reflect.Type]reflect.Value{}}
	for _, v := range []any{(*backoff.ExponentialBackOff)(nil), retry.Bell(nil)} {
		f.Known[reflect.TypeOf(v)] = reflect.ValueOf(v)
	}
	for _, v := range []any{a, g, l, w, m, sl} {
		f.Known[reflect.TypeOf(v)] = reflect.ValueOf(v)
	}
	for _, v := range []any{a, g, l, w, m, sl, s} {
		f.Struct(reflect.ValueOf(v).Elem())
	}
	var main target
	f.Fill(reflect.ValueOf(&main).Elem())
	g.plan.Store(&plan{targets: []target{main}})
	f.Struct(reflect.ValueOf(broken).Elem())
	f.Fill(reflect.ValueOf(&s.shunned.of).Elem())

	s.numbers.next = 77
	a.goals, g.slots = []*goal{g}, []*slot{sl}
	a.broken = []*link{broken}
	broken.over, broken.heir = true, l
	l.over, l.heir = false, nil
	l.guests = map[uint16]guest{m.number: {m, 5, moment}}
	broken.guests = map[uint16]guest{}
	m.state.ExtraNonce2Size = 4
	m.own.Level = 1
	m.relay.agent = m
	m.jobs, m.toldAt = m.jobs[:1], m.toldAt[:1]
	w.derive()
	close(l.ready)
	close(broken.ready)
	close(broken.ended)
	s.gone.workers = s.gone.workers[:1]

	t = &carried{svc: s}
	t.accounts.add(a)
	t.goals.add(g)
	t.links.add(l)
	t.links.add(broken)
	t.works.add(w)
	t.miners.add(m)
	return s, t
}

func write(t *testing.T, of *carried) []byte {
	t.Helper()
	w := upgrade.NewWriter(stateVersion, moment, nil)
	if of.code(w); w.Err() != nil {
		t.Fatal(w.Err())
	}
	return w.Bytes()
}

func read(s *Service, text []byte) (*carried, *upgrade.Codec) {
	t := &carried{svc: s, nobody: new(miner)}
	r := upgrade.NewReader(stateVersion, moment, text)
	t.code(r)
	return t, r
}

// Whatever the proxy knows arrives in the other process: a field that is new fails here until it is coded, or it is said
// why it is left.
func TestStateCode(t *testing.T) {
	t.Parallel()
	if missing := left.Missing(); len(missing) > 0 {
		t.Errorf("there are no fields %q", missing)
	}
	s, want := fullState()
	other := bareService()
	got, r := read(other, write(t, want))
	if r.Err() != nil || r.Left() != 0 {
		t.Fatal(r.Err(), r.Left())
	}
	if g, w := got.goals.all[0].main(), want.goals.all[0].main(); g != w {
		t.Errorf("goal %+v, want %+v", g, w)
	}
	for target, shun := range s.shunned.of {
		if got := other.shunned.of[target]; got == nil || got.why.Error() != shun.why.Error() || !got.until.Equal(shun.until) {
			t.Errorf("%+v is shunned: %+v", target, got)
		}
	}
	if other.numbers.next != 77 {
		t.Errorf("number %d is next", other.numbers.next)
	}
	if len(got.lines) != 0 {
		t.Errorf("%d lines", len(got.lines))
	}
	pairs := []struct{ want, got any }{{s, other}}
	for i := range want.accounts.all {
		pairs = append(pairs, struct{ want, got any }{want.accounts.all[i], got.accounts.all[i]})
	}
	for i := range want.links.all {
		pairs = append(pairs, struct{ want, got any }{want.links.all[i], got.links.all[i]})
	}
	pairs = append(pairs, struct{ want, got any }{want.works.all[0], got.works.all[0]}, struct{ want, got any }{want.miners.all[0], got.miners.all[0]})
	for _, p := range pairs {
		seen := map[unsafe.Pointer]bool{}
		left.Strip("btcpool/agentproxy", reflect.ValueOf(p.want), seen)
		left.Strip("btcpool/agentproxy", reflect.ValueOf(p.got), seen)
	}
	for _, p := range pairs {
		v, g := reflect.ValueOf(p.want).Elem(), reflect.ValueOf(p.got).Elem()
		for i := range v.NumField() {
			if a, b := upgradetest.Field(v, i).Interface(), upgradetest.Field(g, i).Interface(); !reflect.DeepEqual(a, b) {
				t.Errorf("%s.%s: wrote %+v, read %+v", v.Type(), v.Type().Field(i).Name, a, b)
			}
		}
	}
}

// A machine that has left meanwhile is nobody.
func TestGoneMinerPasses(t *testing.T) {
	t.Parallel()
	_, want := fullState()
	want.links.all[0].questions = map[uint32]question{7: {miner: &miner{}, work: want.works.all[0]}}
	got, r := read(bareService(), write(t, want))
	if q := got.links.all[0].questions[7]; r.Err() != nil || q.miner != got.nobody {
		t.Errorf("%+v, %v", q, r.Err())
	}
}

// What pools can is known afterwards.
func TestKnownPools(t *testing.T) {
	t.Parallel()
	s, want := fullState()
	s.dialer.learn([]string{"a:1", "b:2"})
	other := bareService()
	if _, r := read(other, write(t, want)); r.Err() != nil {
		t.Fatal(r.Err())
	}
	got := other.dialer.known()
	if slices.Sort(got); !slices.Equal(got, []string{"a:1", "b:2"}) {
		t.Errorf("%q", got)
	}
}

// Shares that were seen are seen by the other process, too, also those that come while they are told of.
func TestSeenPasses(t *testing.T) {
	t.Parallel()
	var s, other seenSet
	for key := range uint64(maxSeen + 10) {
		s.add(key)
	}
	old, young := s.record()
	for key := range uint64(20) {
		s.add(maxSeen + key)
	}
	fresh := s.recorded()
	s.add(1 << 40)
	if len(fresh) != 10 || len(s.recorded()) != 0 {
		t.Errorf("%d fresh shares", len(fresh))
	}
	for _, some := range []seenShares{{seenOld, old}, {seenYoung, young}, {seenFresh, fresh}} {
		w := upgrade.NewWriter(stateVersion, moment, nil)
		for chunk := range slices.Chunk(some.keys, seenChunk) {
			(&seenShares{some.generation, chunk}).code(w)
		}
		for r := upgrade.NewReader(stateVersion, moment, w.Bytes()); r.Left() > 0; {
			var got seenShares
			if got.code(r); r.Err() != nil {
				t.Fatal(r.Err())
			}
			other.restore(got)
		}
	}
	if delete(s.young, 1<<40); !reflect.DeepEqual(s.young, other.young) || !reflect.DeepEqual(s.old, other.old) {
		t.Errorf("%d and %d shares, want %d and %d", len(other.young), len(other.old), len(s.young), len(s.old))
	}
}

// Whatever is said of a proxy is refused, or is one that can be said again.
func FuzzStateCode(f *testing.F) {
	_, one := fullState()
	w := upgrade.NewWriter(stateVersion, moment, nil)
	one.code(w)
	f.Add(w.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		got, r := read(bareService(), in)
		if r.Err() != nil {
			return
		}
		got.assign()
		w := upgrade.NewWriter(stateVersion, moment, nil)
		if got.code(w); w.Err() != nil {
			return
		}
		if _, r := read(bareService(), w.Bytes()); r.Err() != nil || r.Left() != 0 {
			t.Fatal(r.Err(), r.Left())
		}
	})
}
