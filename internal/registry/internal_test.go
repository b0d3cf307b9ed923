package registry

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestValidity lets a holder renew for a while and then fall silent.
func TestValidity(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var ended atomic.Int64
		v := newValidity(func() { ended.Store(int64(time.Since(began))) })
		defer v.stop()
		for range 5 {
			v.extend(time.Now().Add(3 * time.Second))
			v.extend(time.Now().Add(time.Second)) // an older confirmation takes nothing away
			time.Sleep(2 * time.Second)
			if over := ended.Load(); over != 0 {
				t.Fatalf("over after %v", time.Duration(over))
			}
		}
		time.Sleep(time.Minute)
		if over := time.Duration(ended.Load()); over != 11*time.Second {
			t.Errorf("over after %v, want 11 s", over)
		}
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	base := time.Unix(1e9, 0)
	type dial struct {
		server string
		err    error
		want   int // seconds after base since when ZooKeeper is away; -1: it may be there
	}
	for name, tc := range map[string]struct {
		servers int
		dials   []dial // one a second
	}{
		"one server": {1, []dial{{"a", refused, 0}, {"a", refused, 1}, {"a", errors.New("timeout"), -1}, {"a", refused, 3}}},
		"three servers": {3, []dial{
			{"a", refused, -1},
			{"b", refused, 0},
			{"c", refused, 1},
			{"a", errors.New("timeout"), -1},
			{"b", errors.New("timeout"), -1},
			{"a", refused, 2},
			{"a", refused, 2},
			{"c", refused, 6},
		}},
		"four servers, quorum three": {4, []dial{{"a", refused, -1}, {"b", refused, 0}}},
		"five servers, quorum three": {5, []dial{{"a", refused, -1}, {"b", refused, -1}, {"c", refused, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := refusals{servers: tc.servers, at: map[string]time.Time{}}
			for i, d := range tc.dials {
				at, away := r.record(d.server, base.Add(time.Duration(i)*time.Second), d.err)
				got := -1
				if away {
					got = int(at.Sub(base) / time.Second)
				}
				if got != d.want {
					t.Errorf("dial %d: away since %d, want %d", i, got, d.want)
				}
			}
		})
	}
}

func TestObservation(t *testing.T) {
	t.Parallel()
	var o observation
	now := time.Unix(1e9, 0)
	for i, step := range []struct {
		node    string
		version int32
		breaks  int64
		want    int // seconds unchanged
	}{
		{"a", 0, 0, 0},
		{"a", 0, 0, 1},
		{"a", 0, 0, 2},
		{"a", 1, 0, 0}, // it wrote
		{"a", 1, 0, 1},
		{"a", 1, 2, 0}, // our connection broke
		{"a", 1, 2, 1},
		{"b", 1, 2, 0}, // another leads
		{"b", 1, 2, 1},
	} {
		got := o.unchanged(step.node, step.version, step.breaks, now.Add(time.Duration(i)*time.Second))
		if got != time.Duration(step.want)*time.Second {
			t.Errorf("step %d: unchanged for %v, want %d s", i, got, step.want)
		}
	}
}

func TestParseEpoch(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		last  uint32
		valid bool
	}{
		"": {0, true}, "0": {0, true}, "1700000000": {1700000000, true}, "4294967295": {math.MaxUint32, true},
		"x": {0, false}, "-1": {0, false}, " 7": {0, false}, "4294967296": {0, false}, "99999999999": {0, false},
		"99999999999999999999999": {0, false},
	} {
		if last, err := parseEpoch([]byte(text)); last != want.last || (err == nil) != want.valid {
			t.Errorf("%q: %d, %v", text, last, err)
		}
	}
}

func TestQueue(t *testing.T) {
	t.Parallel()
	got := queue([]string{
		"lock-z-0000000003", "lock-", "", "1", "garbage-0000000001", "lock-a-0000000012", "lock--000000001",
		"lock-0000000001\xff", "lock-b-0000000004",
	})
	want := []string{"lock-z-0000000003", "lock-b-0000000004", "lock-a-0000000012"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	var h hosts
	if err := h.Init([]string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	type try struct {
		Server string
		Pause  bool
	}
	var got []try
	next := func() {
		server, pause := h.Next()
		got = append(got, try{server, pause})
	}
	next()
	next()
	next()
	h.Connected() // to a
	next()
	next()
	if diff := cmp.Diff([]try{{"a", false}, {"b", false}, {"a", true}, {"b", false}, {"a", true}}, got); diff != "" {
		t.Error(diff)
	}
}

// stream is a connection that yields its pieces one by one.
type stream struct {
	net.Conn
	pieces [][]byte
}

func (s *stream) Read(b []byte) (int, error) {
	if len(s.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

// FuzzHandshake reads any answer in two pieces: what is not refused arrives unchanged, and the timeout is the one it
// names.
func FuzzHandshake(f *testing.F) {
	answer := []byte("\x00\x00\x00\x25\x00\x00\x00\x00\x00\x00\x27\x10\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x00\x100123456789abcdef\x00")
	f.Add(answer, uint8(4))
	f.Add(answer[:11], uint8(2))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), uint8(0))
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		at := min(int(cut), len(in))
		var granted time.Duration
		h := &handshake{
			Conn:    &stream{pieces: [][]byte{bytes.Clone(in[:at]), bytes.Clone(in[at:])}},
			granted: func(d time.Duration) { granted = d },
		}
		if at == 0 || at == len(in) {
			h.Conn = &stream{pieces: [][]byte{bytes.Clone(in)}}
		}
		if len(in) == 0 {
			return
		}
		got, err := io.ReadAll(h)
		refuse := len(in) >= 4 && binary.BigEndian.Uint32(in) > maxHandshake
		if refuse != (err != nil) {
			t.Fatalf("%q: %v", in, err)
		}
		if !refuse && !bytes.Equal(got, in) {
			t.Fatalf("%q arrived as %q", in, got)
		}
		var want time.Duration
		if !refuse && len(in) >= handshakeHead {
			want = time.Duration(max(0, int32(binary.BigEndian.Uint32(in[8:])))) * time.Millisecond
		}
		if granted != want {
			t.Fatalf("%q: granted %v, want %v", in, granted, want)
		}
	})
}
