package agentproxy

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/cenkalti/backoff/v5"

	"btcpool/internal/job"
	"btcpool/internal/poll"
	"btcpool/internal/retry"
	"btcpool/internal/upgrade"
)

var moment = time.Unix(1_700_000_000, 5).UTC()

// left are the fields that do not pass to another process, and why.
var left = map[reflect.Type]map[string]string{
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

// filler gives each field that passes a value of its own, as far as its type has so many. Those that refer to something
// of known refer to that.
type filler struct {
	next  int
	known map[reflect.Type]reflect.Value
}

func field(v reflect.Value, i int) reflect.Value {
	f := v.Field(i)
	return reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem() // unexported ones too
}

func (f *filler) fields(v reflect.Value) {
	for i := range v.NumField() {
		if left[v.Type()][v.Type().Field(i).Name] == "" {
			f.fill(field(v, i))
		}
	}
}

func (f *filler) fill(v reflect.Value) {
	f.next++
	if to, ok := f.known[v.Type()]; ok {
		v.Set(to)
		return
	}
	switch at := v.Addr().Interface().(type) {
	case *time.Time:
		*at = moment.Add(time.Duration(f.next))
		return
	case *netip.Addr:
		*at = netip.AddrFrom4([4]byte{192, 0, 2, byte(f.next)})
		return
	case *poll.Outbox:
		at.Restore([]byte("unsent"), f.next%6+1, moment.Add(time.Duration(f.next)))
		return
	case *error:
		*at = errors.New("error " + string(rune('a'+f.next%26)))
		return
	case **backoff.ExponentialBackOff, *retry.Bell:
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(f.next%50 + 1))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(f.next%50 + 1))
	case reflect.Float64:
		v.SetFloat(float64(f.next))
	case reflect.String:
		v.SetString("text" + string(rune('a'+f.next%26)))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		f.fill(v.Index(0))
		f.fill(v.Index(1))
	case reflect.Array:
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(key)
			f.fill(value)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		f.fields(v)
	default:
		panic("no value for " + v.Type().String())
	}
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
	f := filler{known: map[reflect.Type]reflect.Value{}}
	for _, v := range []any{a, g, l, w, m, sl} {
		f.known[reflect.TypeOf(v)] = reflect.ValueOf(v)
	}
	for _, v := range []any{a, g, l, w, m, sl, s} {
		f.fields(reflect.ValueOf(v).Elem())
	}
	var main target
	f.fill(reflect.ValueOf(&main).Elem())
	g.plan.Store(&plan{targets: []target{main}})
	f.fields(reflect.ValueOf(broken).Elem())
	f.fill(reflect.ValueOf(&s.shunned.of).Elem())

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

// strip zeroes what does not pass, once for each struct below v.
func strip(v reflect.Value, seen map[unsafe.Pointer]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() || seen[v.UnsafePointer()] {
			return
		}
		seen[v.UnsafePointer()] = true
		strip(v.Elem(), seen)
	case reflect.Slice:
		for i := range v.Len() {
			strip(v.Index(i), seen)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			if value := v.MapIndex(key); value.Kind() == reflect.Pointer {
				strip(value, seen)
			}
		}
	case reflect.Struct:
		if v.Type().PkgPath() != reflect.TypeFor[Service]().PkgPath() {
			return
		}
		for i := range v.NumField() {
			if f := field(v, i); left[v.Type()][v.Type().Field(i).Name] != "" {
				f.SetZero()
			} else {
				strip(f, seen)
			}
		}
	}
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
	for of, fields := range left {
		for name := range fields {
			if _, ok := of.FieldByName(name); !ok {
				t.Errorf("%s has no field %s", of, name)
			}
		}
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
		strip(reflect.ValueOf(p.want), seen)
		strip(reflect.ValueOf(p.got), seen)
	}
	for _, p := range pairs {
		v, g := reflect.ValueOf(p.want).Elem(), reflect.ValueOf(p.got).Elem()
		for i := range v.NumField() {
			if a, b := field(v, i).Interface(), field(g, i).Interface(); !reflect.DeepEqual(a, b) {
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
