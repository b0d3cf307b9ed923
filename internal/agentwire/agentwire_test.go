package agentwire_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/agentwire"
	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

const goldenFile = "frames.golden" // a line is "name: hex"

type message interface{ AppendTo(dst []byte) []byte }

// parse returns the message in f, and nil for an unknown command.
func parse(f agentwire.Frame) (message, error) {
	switch f.Command {
	case agentwire.CmdRegister:
		return agentwire.ParseRegister(f)
	case agentwire.CmdSubmit, agentwire.CmdSubmitTime, agentwire.CmdSubmitVersion, agentwire.CmdSubmitTimeVersion:
		return agentwire.ParseSubmit(f)
	case agentwire.CmdUnregister:
		return agentwire.ParseUnregister(f)
	case agentwire.CmdSetDifficulty:
		return agentwire.ParseSetDifficulty(f)
	case agentwire.CmdSubmitResponse:
		return agentwire.ParseSubmitResponse(f)
	}
	return nil, nil
}

// parseAll returns the messages in stream, those of unknown and malformed frames nil, and what is left: a part of a
// frame, or with the error what no frame begins with. It overwrites what it has parsed.
func parseAll(stream []byte) (messages []message, rest []byte, err error) {
	for {
		f, n, err := agentwire.ParseFrame(stream, agentwire.MaxFrame)
		if n == 0 {
			return messages, stream, err
		}
		m, err := parse(f)
		if err != nil {
			m = nil
		}
		messages = append(messages, m)
		clear(stream[:n])
		stream = stream[n:]
	}
}

// goldenFrames returns the frames of the golden file by name.
func goldenFrames(t testing.TB) map[string][]byte {
	t.Helper()
	frames := make(map[string][]byte)
	for line := range strings.Lines(string(testkit.Data(t, goldenFile))) {
		name, digits, _ := strings.Cut(strings.TrimSpace(line), ": ")
		var err error
		if frames[name], err = hex.DecodeString(digits); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return frames
}

func TestGolden(t *testing.T) {
	t.Parallel()
	submit := agentwire.Submit{JobID: 0xa9, Session: 0x1122, ExtraNonce2: 0x11223344, Nonce: 0xaabbccdd}
	timed, rolled, full := submit, submit, submit
	timed.Time = 0x57bd2ad0
	rolled.VersionBits, rolled.Rolled = 0x00120000, true
	full.Time, full.VersionBits, full.Rolled = timed.Time, rolled.VersionBits, true

	tests := []struct {
		name    string
		message message
	}{
		{"register", agentwire.Register{Session: 0x1122, Agent: "cgminer", Worker: "s1099"}},
		{"register, first session", agentwire.Register{Session: 0, Agent: "cgminer/4.10.0", Worker: "s1099x"}},
		{"register, no names", agentwire.Register{Session: agentwire.MaxSession, Worker: "__default__"}},
		{"submit", submit},
		{"submit, time", timed},
		{"submit, version", rolled},
		{"submit, time and version", full},
		{"submit, BTCAgent 2.0", agentwire.Submit{ExtraNonce2: 1, Nonce: 0xb2957c02, Time: 0x65000001, VersionBits: 0x00c0a000, Rolled: true}},
		{"submit, no bits rolled", agentwire.Submit{JobID: 255, Session: agentwire.MaxSession, ExtraNonce2: 1<<32 - 1, Rolled: true}},
		{"unregister", agentwire.Unregister{Session: 0x1122}},
		{"set difficulty", agentwire.SetDifficulty{Difficulty: 14, Sessions: []agentwire.Session{0x0001, 0x0203}}},
		{"set difficulty, nobody", agentwire.SetDifficulty{Sessions: []agentwire.Session{}}},
		{"set difficulty, highest", agentwire.SetDifficulty{Difficulty: bitcoin.MaxDifficulty, Sessions: []agentwire.Session{agentwire.MaxSession}}},
		{"response, accepted", agentwire.SubmitResponse{Index: 5, Status: share.StatusAccept}},
		{"response, stale", agentwire.SubmitResponse{Index: 5, Status: share.StatusJobNotFoundOrStale}},
		{"response, last index", agentwire.SubmitResponse{Index: 1<<16 - 1, Status: share.StatusUnknown}},
	}
	var text []byte
	for _, test := range tests {
		text = fmt.Appendf(text, "%s: %x\n", test.name, test.message.AppendTo(nil))
	}
	testkit.Golden(t, goldenFile, text)
	golden := goldenFrames(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, rest, err := parseAll(golden[test.name])
			if err != nil || len(rest) > 0 {
				t.Errorf("error %v, rest %x", err, rest)
			}
			if diff := cmp.Diff([]message{test.message}, got); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

// frame returns a frame with a right length.
func frame(command byte, body string) []byte {
	size := 4 + len(body)
	return append([]byte{agentwire.Magic, command, byte(size), byte(size >> 8)}, body...)
}

func TestParseFrame(t *testing.T) {
	t.Parallel()
	const limit = 100
	for _, test := range []struct {
		name string
		in   []byte
		n    int
		err  error
	}{
		{"nothing", nil, 0, nil},
		{"part of a header", []byte("\x7f\x04\x06"), 0, nil},
		{"part of a body", []byte("\x7f\x04\x06\x00\x11"), 0, nil},
		{"and the next", []byte("\x7f\x04\x06\x00\x11\x22\x7f"), 6, nil},
		{"no body", []byte("\x7f\xee\x04\x00"), 4, nil},
		{"unknown command", frame(0x21, "any"), 7, nil},
		{"longest", frame(0x01, strings.Repeat("x", limit-4)), limit, nil},
		{"JSON", []byte("{"), 0, agentwire.ErrStream},
		{"length 3", []byte("\x7f\x04\x03\x00"), 0, agentwire.ErrStream},
		{"length 0", []byte("\x7f\x04\x00\x00"), 0, agentwire.ErrStream},
		{"too long, body missing", []byte("\x7f\x01\x65\x00"), 0, agentwire.ErrStream},
		{"longest possible", []byte("\x7f\x01\xff\xff"), 0, agentwire.ErrStream},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f, n, err := agentwire.ParseFrame(test.in, limit)
			if n != test.n || !errors.Is(err, test.err) {
				t.Errorf("length %d, error %v, want %d, %v", n, err, test.n, test.err)
			}
			if n > 0 && (byte(f.Command) != test.in[1] || !bytes.Equal(f.Body, test.in[4:n])) {
				t.Errorf("%+v of %x", f, test.in)
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		in   []byte
	}{
		{"register of 7 bytes", frame(0x01, "\x11\x22\x00")},
		{"register, session 0xffff", frame(0x01, "\xff\xffa\x00w\x00")},
		{"submit without nonce", frame(0x02, strings.Repeat("x", 7))},
		{"submit with time", frame(0x02, strings.Repeat("x", 15))},
		{"submit with time, without", frame(0x03, strings.Repeat("x", 11))},
		{"submit with version, without", frame(0x12, strings.Repeat("x", 11))},
		{"submit with both, with one", frame(0x13, strings.Repeat("x", 15))},
		{"submit, session 0xffff", frame(0x02, "j\xff\xffxxxxnnnn")},
		{"unregister of 7 bytes", frame(0x04, "\x11\x22\x00")},
		{"unregister, session 0xffff", frame(0x04, "\xff\xff")},
		{"set difficulty without count", frame(0x05, "\x0e\x01")},
		{"set difficulty, a session missing", frame(0x05, "\x0e\x02\x00\x11\x22")},
		{"set difficulty, half a session", frame(0x05, "\x0e\x01\x00\x11\x22\x33")},
		{"set difficulty, session 0xffff", frame(0x05, "\x0e\x01\x00\xff\xff")},
		{"set difficulty to 2^63", frame(0x05, "\x3f\x01\x00\x11\x22")},
		{"response of 8 bytes", frame(0x10, "\x00\x00\x15\x00")},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f, n, err := agentwire.ParseFrame(test.in, agentwire.MaxFrame)
			if n != len(test.in) || err != nil {
				t.Fatalf("length %d, error %v", n, err)
			}
			if m, err := parse(f); !errors.Is(err, agentwire.ErrFrame) {
				t.Errorf("%+v, error %v", m, err)
			}
		})
	}
}

func TestWrongCommand(t *testing.T) {
	t.Parallel()
	f := agentwire.Frame{Command: 0x20, Body: make([]byte, 11)}
	_, err1 := agentwire.ParseRegister(f)
	_, err2 := agentwire.ParseSubmit(f)
	_, err3 := agentwire.ParseUnregister(f)
	_, err4 := agentwire.ParseSetDifficulty(f)
	_, err5 := agentwire.ParseSubmitResponse(f)
	for i, err := range []error{err1, err2, err3, err4, err5} {
		if !errors.Is(err, agentwire.ErrFrame) {
			t.Errorf("%d: error %v", i, err)
		}
	}
}

func TestRegisterNames(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, names, agent, worker string }{
		{"no last NUL", "cgminer\x00s1099", "cgminer", "s109"},
		{"one string", "cgminer\x00", "cgminer", "__default__"},
		{"more than two", "a\x00w\x00z\x00", "a", "w"},
		{"filtered", "cg miner\n\x00w\"0\xff1,=\u00e9<\x00", "cgminer", "w01"},
		{"nothing left", "\x00 \"\x00", "", "__default__"},
		{"all that may be", "-._:|^/\x00-._:|^/09AZaz\x00", "-._:|^/", "-._:|^/09AZaz"},
		{"too long", strings.Repeat("a", 300) + "\x00" + strings.Repeat("w ", 300) + "\x00", strings.Repeat("a", 30), strings.Repeat("w", 20)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := agentwire.ParseRegister(agentwire.Frame{Command: agentwire.CmdRegister, Body: []byte("\x22\x11" + test.names)})
			if err != nil {
				t.Fatal(err)
			}
			want := agentwire.Register{Session: 0x1122, Agent: test.agent, Worker: test.worker}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What an unmodified btcpool takes is 100 bytes long at most, whatever the miner calls itself.
func TestRegisterAppendLongNames(t *testing.T) {
	t.Parallel()
	hostile := strings.Repeat("n\x00ame", 1000)
	got := agentwire.Register{Session: 1, Agent: hostile, Worker: hostile}.AppendTo(nil)
	want := frame(0x01, "\x01\x00"+strings.Repeat("name", 6)+"\x00"+strings.Repeat("name", 5)+"\x00")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAppendSetDifficulties(t *testing.T) {
	t.Parallel()
	const all = int(agentwire.MaxSession) + 1
	crowd := make(map[agentwire.Session]bitcoin.Difficulty, all)
	var sessions []agentwire.Session
	for i := range all {
		crowd[agentwire.Session(i)] = 20
		sessions = append(sessions, agentwire.Session(i))
	}
	for _, test := range []struct {
		name string
		in   map[agentwire.Session]bitcoin.Difficulty
		want []message
	}{
		{"nobody", nil, nil},
		{"ascending", map[agentwire.Session]bitcoin.Difficulty{9: 20, 1: 14, 7: 20, 3: 14, 5: 62}, []message{
			agentwire.SetDifficulty{Difficulty: 14, Sessions: sessionList(1, 3)},
			agentwire.SetDifficulty{Difficulty: 20, Sessions: sessionList(7, 9)},
			agentwire.SetDifficulty{Difficulty: 62, Sessions: sessionList(5)},
		}},
		{"below 1", map[agentwire.Session]bitcoin.Difficulty{1: -32, 2: 0, 3: -1}, []message{
			agentwire.SetDifficulty{Difficulty: -32, Sessions: sessionList(1)},
			agentwire.SetDifficulty{Difficulty: -1, Sessions: sessionList(3)},
			agentwire.SetDifficulty{Difficulty: 0, Sessions: sessionList(2)},
		}},
		{"more than a frame holds", crowd, []message{
			agentwire.SetDifficulty{Difficulty: 20, Sessions: sessions[:32764]},
			agentwire.SetDifficulty{Difficulty: 20, Sessions: sessions[32764:65528]},
			agentwire.SetDifficulty{Difficulty: 20, Sessions: sessions[65528:]},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, rest, err := parseAll(agentwire.AppendSetDifficulties(nil, test.in))
			if err != nil || len(rest) > 0 {
				t.Errorf("error %v, %d bytes left", err, len(rest))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func sessionList(s ...agentwire.Session) []agentwire.Session { return s }

// The pool and the miner must mean the same coinbase.
func TestExtraNonce(t *testing.T) {
	t.Parallel()
	const (
		session = agentwire.Session(0xabcd)
		link    = 0x0100002a
		miner   = 0x11223344
	)
	coinbase1, coinbase2 := []byte("one"), []byte("two")

	pool := binary.BigEndian.AppendUint32(bytes.Clone(coinbase1), link)
	pool = binary.BigEndian.AppendUint64(pool, session.ExtraNonce2(miner))
	pool = append(pool, coinbase2...)

	behind := binary.BigEndian.AppendUint32(bytes.Clone(coinbase1), link)
	behind = binary.BigEndian.AppendUint32(behind, session.ExtraNonce1())
	behind = binary.BigEndian.AppendUint32(behind, miner)
	behind = append(behind, coinbase2...)

	want := "one\x01\x00\x00\x2a\x00\x00\xab\xcd\x11\x22\x33\x44two"
	if diff := cmp.Diff([]string{want, want}, []string{string(pool), string(behind)}); diff != "" {
		t.Error(diff)
	}
}
