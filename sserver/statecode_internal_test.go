package sserver

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
	"unsafe"

	"btcpool/internal/job"
	v1 "btcpool/internal/stratum/v1"
	"btcpool/internal/upgrade"
)

var moment = time.Unix(1_700_000_000, 5)

// fill gives each field below v a value of its own, as far as its type has so many.
func fill(v reflect.Value, next *int) {
	*next++
	switch v.Interface().(type) {
	case credit:
		v.Set(reflect.ValueOf(credit{uint8(*next % maxChains), int32(*next)}))
		return
	case time.Time:
		v.Set(reflect.ValueOf(moment.Add(time.Duration(*next))))
		return
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.AddrFrom4([4]byte{192, 0, 2, byte(*next)})))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(*next%50 + 1))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*next%50 + 1))
	case reflect.Float64:
		v.SetFloat(float64(*next))
	case reflect.String:
		v.SetString("text" + string(rune('a'+*next%26)))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), next)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), next)
		fill(v.Index(1), next)
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), next)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, next)
			fill(value, next)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Field(i)
			fill(reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem(), next) // unexported ones too
		}
	default:
		panic("no value for " + v.Type().String())
	}
}

// legal undoes what no session has.
func legal(m *miner) {
	m.Difficulty.Level = 1
	m.Rejects.At = slices.Repeat([]int64{5, 6, 7}, maxRejects)[:maxRejects]
	m.Rejects.Next = 1
}

func fullState() (s state) {
	next := 0
	fill(reflect.ValueOf(&s).Elem(), &next)
	s.Phase = authorized
	s.V1.ExtraNonce2Size = job.GrandExtranonce2Size
	s.Names = map[string]int{"a": 0, "b": 1}
	s.Chain, s.Question.Chain = 2, 2
	for i := range s.Jobs {
		s.Jobs[i].Chain = uint8(i + 1)
	}
	legal(&s.Miner)
	for _, miners := range []map[uint16]*farmMiner{s.Farm.Miners, s.Farm.Past} {
		for _, m := range miners {
			legal(&m.miner)
		}
	}
	return s
}

func fullMoved() moved {
	s := &session{
		state:       fullState(),
		pending:     []byte("half a li"),
		said:        moment.Add(-time.Second),
		readBy:      moment.Add(time.Minute),
		pausedUntil: moment.Add(time.Second),
		strange:     20,
		admitted:    true,
		discard:     10,
	}
	s.outbox.Restore([]byte("unsent"), 3, moment.Add(time.Second))
	return moved{s, 1}
}

// Whatever a session knows arrives in the other process: a field that is new fails here until it is coded.
func TestStateCode(t *testing.T) {
	t.Parallel()
	want := fullMoved()
	w := upgrade.NewWriter(stateVersion, moment, nil)
	if want.code(w); w.Err() != nil {
		t.Fatal(w.Err())
	}
	got := moved{session: new(session)}
	r := upgrade.NewReader(stateVersion, moment, w.Bytes())
	if got.code(r); r.Err() != nil || r.Left() != 0 {
		t.Fatal(r.Err(), r.Left())
	}
	if !reflect.DeepEqual(want, got) {
		t.Errorf("wrote %+v\n%+v\nread %+v\n%+v", want, want.session, got, got.session)
	}
}

// To a program that knows nothing of sub-pools go only sessions that were not told of any.
func TestStateOfSubPool(t *testing.T) {
	t.Parallel()
	for place, can := range []bool{true, false} {
		w := upgrade.NewWriter(withSubPools-1, moment, nil)
		if codeSentJob(w, &sentJob{Coinbase: uint8(place)}); (w.Err() == nil) != can {
			t.Errorf("coinbase %d: %v", place, w.Err())
		}
	}
}

// To a program that knows nothing of grand pools their clients do not go.
func TestStateOfGrandPool(t *testing.T) {
	t.Parallel()
	for _, s := range []*state{{Grand: true}, {V1: v1.State{ExtraNonce2Size: job.GrandExtranonce2Size}}, {V1: v1.State{ExtraNonce2Size: 9}}} {
		w := upgrade.NewWriter(withGrandPools-1, moment, nil)
		if s.code(w); w.Err() == nil {
			t.Errorf("%+v passes to an older program", s)
		}
	}
}

// Shares that were seen are what they were, in whichever version is spoken.
func TestSeenSharesCode(t *testing.T) {
	t.Parallel()
	for _, version := range []uint32{withChains, stateVersion} {
		want := seenShares{seenOf{1, 5}, []shareKey{{extraNonce2: [3]uint32{0, 1, 2}, extraNonce1: 3, time: 4, nonce: 5, versionBits: 6}}}
		if version >= withGrandPools {
			want.keys[0].extraNonce2[0] = 7
		}
		w := upgrade.NewWriter(version, moment, nil)
		want.code(w)
		var got seenShares
		r := upgrade.NewReader(version, moment, w.Bytes())
		if got.code(r); r.Err() != nil || r.Left() != 0 || !reflect.DeepEqual(want, got) {
			t.Errorf("version %d: wrote %+v, read %+v, %v", version, want, got, r.Err())
		}
	}
}

// Of a session that has ended, and of which ids are free, too.
func TestIDPoolCode(t *testing.T) {
	t.Parallel()
	s := fullState()
	want := newIDPool(3, time.Minute)
	for range 3 {
		want.get(moment)
	}
	id := uint32(3)<<24 | want.first
	want.put(id, moment)
	want.putPast(id+1, past{s.Miner, s.Jobs, s.Next, s.Farm.Miners}, s.IP, moment)
	w := upgrade.NewWriter(stateVersion, moment, nil)
	if want.code(w); w.Err() != nil {
		t.Fatal(w.Err())
	}
	got := newIDPool(3, time.Minute)
	r := upgrade.NewReader(stateVersion, moment, w.Bytes())
	if got.code(r); r.Err() != nil || r.Left() != 0 {
		t.Fatal(r.Err(), r.Left())
	}
	if !reflect.DeepEqual(want, got) {
		t.Errorf("wrote %+v, read %+v", want, got)
	}
}

// Whatever is said of a session is refused, or is one that can be said again.
func FuzzStateCode(f *testing.F) {
	one := fullMoved()
	w := upgrade.NewWriter(stateVersion, moment, nil)
	one.code(w)
	f.Add(w.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		got := moved{session: new(session)}
		r := upgrade.NewReader(stateVersion, moment, in)
		if got.code(r); r.Err() != nil {
			return
		}
		w := upgrade.NewWriter(stateVersion, moment, nil)
		got.code(w)
		again := moved{session: new(session)}
		r = upgrade.NewReader(stateVersion, moment, w.Bytes())
		if again.code(r); r.Err() != nil || r.Left() != 0 || !reflect.DeepEqual(got, again) {
			t.Fatalf("%v\n%+v\n%+v", r.Err(), got.session, again.session)
		}
	})
}
