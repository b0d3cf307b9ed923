package agentwire_test

import (
	stdcmp "cmp"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"btcpool/internal/agentwire"
	"btcpool/internal/share"
)

func parseShares(f agentwire.Frame) (rows []agentwire.Submit, err error) {
	err = agentwire.ParseShares(f, func(s agentwire.Submit) { rows = append(rows, s) })
	return rows, err
}

func mustParse(t interface{ Fatalf(string, ...any) }, b []byte) agentwire.Frame {
	f, n, err := agentwire.ParseFrame(b, agentwire.MaxFrame)
	if err != nil || n != len(b) {
		t.Fatalf("%x: %d of %d bytes, %v", b, n, len(b), err)
	}
	return f
}

// The bytes of docs/formats.md.
func TestBatchBytes(t *testing.T) {
	t.Parallel()
	s := agentwire.Shares{JobID: 7, Rows: []agentwire.Submit{
		{Session: 5, ExtraNonce2: 1, Nonce: 0x44332211},
		{Session: 5, ExtraNonce2: 2, Nonce: 0x44332212, VersionBits: 0x00c0a000, Rolled: true},
		{Session: 300, ExtraNonce2: 200, Nonce: 1, VersionBits: 0x1fffe000, Rolled: true, Time: 0x65000002},
	}}
	got, rows := s.AppendTo(nil, agentwire.MaxFrame)
	want := "7f202200" + "07" + "02000065" +
		"14" + "01" + "11223344" +
		"02" + "02" + "12223344" + "0506" +
		"9f09" + "c801" + "01000000" + "ffff" + "00"
	if text := hex.EncodeToString(got); text != want || rows != 3 {
		t.Errorf("got  %s, %d rows\nwant %s", text, rows, want)
	}
	v := agentwire.Verdicts{First: 0x0102, Statuses: []share.Status{
		share.StatusAccept, share.StatusAccept, share.StatusJobNotFoundOrStale, share.StatusAccept, share.StatusLowDifficulty,
	}}
	if text, want := hex.EncodeToString(v.AppendTo(nil)), "7f230b00"+"0201"+"05"+"0215"+"0217"; text != want {
		t.Errorf("got %s, want %s", text, want)
	}
}

func sortRows(rows []agentwire.Submit) {
	slices.SortStableFunc(rows, func(a, b agentwire.Submit) int { return stdcmp.Compare(a.Session, b.Session) })
}

func drawRows(t *rapid.T) []agentwire.Submit {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) agentwire.Submit {
		s := agentwire.Submit{
			JobID:       9,
			Session:     agentwire.Session(rapid.Uint16Max(uint16(agentwire.MaxSession)).Draw(t, "session")),
			ExtraNonce2: rapid.Uint32().Draw(t, "extranonce2"),
			Nonce:       rapid.Uint32().Draw(t, "nonce"),
			Time:        rapid.Uint32().Draw(t, "time"),
			Rolled:      rapid.Bool().Draw(t, "rolled"),
		}
		if s.Rolled {
			s.VersionBits = uint32(rapid.Uint16().Draw(t, "version bits")) << 13
		}
		return s
	}), 0, 50).Draw(t, "rows")
}

func TestSharesRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := agentwire.Shares{JobID: 9, Rows: drawRows(t)}
		sortRows(s.Rows)
		limit := rapid.IntRange(100, 2000).Draw(t, "limit")
		var got []agentwire.Submit
		for rest := s; len(rest.Rows) > 0; {
			frame, n := rest.AppendTo(nil, limit)
			if len(frame) > limit || n == 0 {
				t.Fatalf("%d bytes, %d rows, at most %d bytes are allowed", len(frame), n, limit)
			}
			rows, err := parseShares(mustParse(t, frame))
			if err != nil || len(rows) != n {
				t.Fatalf("%d of %d rows, %v", len(rows), n, err)
			}
			got = append(got, rows...)
			rest.Rows = rest.Rows[n:]
		}
		if len(s.Rows) > 0 {
			if diff := cmp.Diff(s.Rows, got); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

func TestVerdictsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := agentwire.Verdicts{
			First:    rapid.Uint16().Draw(t, "first"),
			Statuses: rapid.SliceOf(rapid.SampledFrom(append(share.Statuses(), -1))).Draw(t, "statuses"),
		}
		if v.Statuses == nil {
			v.Statuses = []share.Status{}
		}
		got, err := agentwire.ParseVerdicts(mustParse(t, v.AppendTo(nil)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(v, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// Nothing that a peer sends is too much, and what is understood can be said again.
func FuzzBatch(f *testing.F) {
	s := agentwire.Shares{JobID: 7, Rows: []agentwire.Submit{
		{Session: 5, ExtraNonce2: 1, Nonce: 2}, {Session: 9, Time: 77, VersionBits: 1 << 13, Rolled: true},
	}}
	frame, _ := s.AppendTo(nil, agentwire.MaxFrame)
	f.Add(byte(agentwire.CmdShares), frame[4:])
	f.Add(byte(agentwire.CmdVerdicts), agentwire.Verdicts{First: 9, Statuses: []share.Status{0, 21, share.StatusAccept}}.AppendTo(nil)[4:])
	f.Add(byte(agentwire.CmdVerdicts), []byte("\x00\x00\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, command byte, body []byte) {
		if rows, err := parseShares(agentwire.Frame{Command: agentwire.Command(command), Body: body}); err == nil && len(rows) > 0 {
			frame, n := agentwire.Shares{JobID: rows[0].JobID, Rows: rows}.AppendTo(nil, agentwire.MaxFrame)
			again, err := parseShares(mustParse(t, frame))
			if diff := cmp.Diff(rows[:n], again); diff != "" || err != nil {
				t.Fatalf("%v %s", err, diff)
			}
		} else if err != nil && !errors.Is(err, agentwire.ErrFrame) {
			t.Fatal(err)
		}
		if v, err := agentwire.ParseVerdicts(agentwire.Frame{Command: agentwire.Command(command), Body: body}); err == nil {
			again, err := agentwire.ParseVerdicts(mustParse(t, v.AppendTo(nil)))
			if diff := cmp.Diff(v, again); diff != "" || err != nil {
				t.Fatalf("%v %s", err, diff)
			}
		}
	})
}

// BenchmarkShares says how many bytes a share takes: 50 ms of 10,000 miners that send 1,000 shares a second, with
// extranonces that count up, rolled versions and the job's time.
func BenchmarkShares(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := agentwire.Shares{JobID: 1}
	for range 50 {
		s.Rows = append(s.Rows, agentwire.Submit{
			Session: agentwire.Session(rng.Uint32N(10_000)), ExtraNonce2: rng.Uint32N(100), Nonce: rng.Uint32(),
			VersionBits: rng.Uint32N(1<<16) << 13, Rolled: true,
		})
	}
	sortRows(s.Rows)
	var dst []byte
	for b.Loop() {
		dst, _ = s.AppendTo(dst[:0], agentwire.MaxFrame)
	}
	b.ReportMetric(float64(len(dst))/float64(len(s.Rows)), "B/share")
}
