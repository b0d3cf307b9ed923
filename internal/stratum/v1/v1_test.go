package v1_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/agentwire"
	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/share"
	v1 "btcpool/internal/stratum/v1"
)

// session grants everything and writes down what it was asked.
type session struct {
	asked    []string
	loggedIn bool
	farm     bool
	later    bool // the answer to a login comes later

	gibberish int
}

func (s *session) note(format string, args ...any) {
	s.asked = append(s.asked, fmt.Sprintf(format, args...))
}

func (s *session) Subscribe(software string, before uint32, resume bool) (v1.Subscription, share.Status) {
	s.note("subscribe %s %08x %v", software, before, resume)
	s.farm = software == "btccom-agent/1"
	return v1.Subscription{ExtraNonce1: 0x01020304, ExtraNonce2Size: 8, UniqueJobIDs: software == "nicehash/1"}, share.StatusAccept
}

func (s *session) LogIn(name string, wishes v1.Wishes) (share.Status, bool) {
	s.note("log in %s %+v", name, wishes)
	s.loggedIn = true
	return share.StatusAccept, !s.later
}

func (s *session) Submit(sub v1.Submission) (share.Status, bool) {
	s.note("submit %s %d %v %x %d", sub.Worker, sub.Job, sub.NoJob, sub.ExtraNonce2, sub.Nonce)
	return share.StatusLowDifficulty, true
}

func (s *session) SubmitOf(number uint16, sub v1.Submission) (share.Status, bool) {
	s.note("submit of %d %d %x", number, sub.Job, sub.ExtraNonce2)
	return share.StatusStale, number != 9
}

func (s *session) Name(software string)                 { s.note("name %s", software) }
func (s *session) LoggedIn() bool                       { return s.loggedIn }
func (s *session) VersionBits() uint32                  { return 0x1fffe000 }
func (s *session) RollVersion(mask, _ uint32)           { s.note("roll %08x", mask) }
func (s *session) WishDifficulty(d bitcoin.Difficulty)  { s.note("wish %d", d) }
func (s *session) LimitDifficulty(d bitcoin.Difficulty) { s.note("limit %d", d) }
func (s *session) SpeaksForFarm() bool                  { return s.farm && s.loggedIn }
func (s *session) Register(n uint16, worker, software string) {
	s.note("register %d %s %s", n, worker, software)
}
func (s *session) SessionKey() uint64 { return 1 }
func (s *session) EndSession(id uint32, key uint64) bool {
	s.note("end %08x", id)
	return key == s.SessionKey()
}
func (s *session) Unregister(n uint16)       { s.note("unregister %d", n) }
func (s *session) BadInput()                 { s.note("bad input") }
func (s *session) CutFrame()                 { s.note("cut frame") }
func (s *session) IgnoreFrame(reason string) { s.note("ignore %s", reason) }

func (s *session) Gibberish() (tooMuch bool) {
	s.gibberish++
	return s.gibberish == 5
}

// talk has all of in handled, which arrives in pieces that end at the cuts.
func talk(s *session, in []byte, cuts ...int) (out []byte, err error) {
	conn := v1.Conn{State: new(v1.State), Session: s}
	from := 0
	for _, to := range append(cuts, len(in)) {
		for err == nil {
			var n int
			if out, n, err = conn.Handle(out, in[from:to]); n == 0 {
				break
			}
			from += n
		}
	}
	return out, err
}

func lines(list ...string) []byte { return []byte(strings.Join(list, "\n") + "\n") }

func TestConversation(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		in    []byte
		asked []string
		codes []int // of the answers; 0: granted
		err   error
	}{
		{"a miner", lines(
			`{"id":1,"method":"mining.configure","params":[["version-rolling","minimum-difficulty"],{"version-rolling.mask":"ffffffff","minimum-difficulty.value":2}]}`,
			`{"id":2,"method":"mining.subscribe","params":["x/1","0a0b0c0d"]}`,
			`{"id":3,"method":"mining.suggest_difficulty","params":[1024]}`,
			`{"id":4,"method":"mining.authorize","params":["alice.rig","d=64,md=4"]}`,
			`{"id":5,"method":"mining.submit","params":["alice.rig","7","0000000000000abc","60000000","0000000f"]}`,
			`{"id":6,"method":"mining.submit","params":["alice.rig","700","0000000000000abc","60000000","0000000f"]}`,
		), []string{
			"roll 1fffe000", "limit 1", "subscribe x/1 0a0b0c0d true", "wish 10",
			"log in alice.rig {Start:64 Floor:4 HasStart:true HasFloor:true Unclear:false}",
			"submit alice.rig 7 false abc 15", "submit alice.rig 188 true abc 15",
		}, []int{0, 0, 0, 0, 23, 23}, nil},
		{
			"before the login", lines(`{"id":1,"method":"mining.submit","params":["a","1","00","60000000","1"]}`, `{"id":2,"method":"mining.no"}`),
			nil,
			[]int{24, 26},
			nil,
		},
		{
			"what it is comes later", lines(`{"id":1,"method":"mining.subscribe","params":[]}`, `{"id":1,"result":"x/2"}`, `{"id":1,"result":"x/3"}`),
			[]string{"subscribe  00000000 false", "name x/2"},
			[]int{0},
			nil,
		},
		{"no JSON", lines("a", "b", "c", "d", "e", "f"), []string{"bad input", "bad input", "bad input", "bad input", "bad input"}, []int{27, 27, 27, 27, 27}, v1.ErrBadInput},
		{"frames before the login", bytes.Repeat(agentwire.Unregister{Session: 1}.AppendTo(nil), 6), slices.Repeat([]string{"ignore early"}, 6), nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var s session
			out, err := talk(&s, test.in)
			if !errors.Is(err, test.err) {
				t.Errorf("error %v, want %v", err, test.err)
			}
			if diff := cmp.Diff(test.asked, s.asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.codes, codes(t, out)); diff != "" {
				t.Errorf("answers %s (-want +got):\n%s", out, diff)
			}
		})
	}
}

// codes returns those of the answers in a text.
func codes(t *testing.T, text []byte) (codes []int) {
	for line := range bytes.Lines(text) {
		var m struct {
			ID     any
			Method string
			Error  []any
		}
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		switch {
		case m.Method != "":
		case m.Error == nil:
			codes = append(codes, 0)
		default:
			codes = append(codes, int(m.Error[0].(float64)))
		}
	}
	return codes
}

// A farm proxy's shares are counted and answered once it asks for that.
func TestFarm(t *testing.T) {
	t.Parallel()
	in := lines(`{"id":1,"method":"mining.subscribe","params":["btccom-agent/1"]}`, `{"id":2,"method":"mining.authorize","params":["alice.farm"]}`)
	in = agentwire.Register{Session: 3, Agent: "x/1", Worker: "rig"}.AppendTo(in)
	in = agentwire.Submit{Session: 3, JobID: 5, ExtraNonce2: 7}.AppendTo(in)
	in = append(in, lines(`{"id":3,"method":"agent.get_capabilities","params":[["subres"]]}`)...)
	in = agentwire.Submit{Session: 9, JobID: 5, ExtraNonce2: 7}.AppendTo(in) // of nobody
	in = agentwire.Submit{Session: 3, JobID: 5, ExtraNonce2: 8}.AppendTo(in)
	var s session
	out, err := talk(&s, in)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"subscribe btccom-agent/1 00000000 false", "log in alice.farm {Start:1 Floor:1 HasStart:false HasFloor:false Unclear:false}",
		"register 3 rig x/1", "submit of 3 5 300000007", "submit of 9 5 900000007", "submit of 3 5 300000008",
	}
	if diff := cmp.Diff(want, s.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	verdict := agentwire.SubmitResponse{Index: 1, Status: share.StatusJobNotFoundOrStale}.AppendTo(nil)
	if !bytes.HasSuffix(out, verdict) || bytes.Count(out, []byte{agentwire.Magic}) != 1 {
		t.Errorf("answered %q", out)
	}
}

func TestLoggedInLater(t *testing.T) {
	t.Parallel()
	conn := v1.Conn{State: new(v1.State), Session: &session{later: true}}
	out, _, err := conn.Handle(nil, lines(`{"id":"x","method":"mining.authorize","params":["alice"]}`))
	if len(out) > 0 || err != nil {
		t.Fatalf("answered %q, %v", out, err)
	}
	out = conn.LoggedIn(out, share.StatusAccept)
	if want := `{"id":"x","result":true,"error":null}` + "\n"; string(out) != want {
		t.Errorf("answered %q", out)
	}
	if diff := cmp.Diff(v1.State{}, *conn.State); diff != "" {
		t.Errorf("left over: %s", diff)
	}
}

func TestAnnounce(t *testing.T) {
	t.Parallel()
	j := v1.NewJob(&job.StratumJob{Time: 0x60000000, Coinbase2: []byte{0xab}}, []int{4, 8})
	for _, test := range []struct {
		name  string
		state v1.State
		a     v1.Announcement
		want  []string // parts, in their order
	}{
		{
			"the first",
			v1.State{ExtraNonce2Size: 8},
			v1.Announcement{First: true, NewDifficulty: true, Difficulty: 3, Clean: true},
			[]string{`"mining.set_difficulty","params":[8]`, `"mining.notify","params":["0",`, `"ab",[]`, `"60000000",true]`, "client.get_version"},
		},
		{
			"its number goes round",
			v1.State{ExtraNonce2Size: 4, Named: true},
			v1.Announcement{Number: 258, Later: 2},
			[]string{`"mining.notify","params":["2",`, `"00000000ab",[]`, `"60000002",false]`},
		},
		{
			"no id twice",
			v1.State{ExtraNonce2Size: 8, UniqueJobIDs: true, Named: true},
			v1.Announcement{Number: 258},
			[]string{fmt.Sprintf(`"mining.notify","params":["%d",`, 0x60000000<<8|2)},
		},
		{
			"a farm's difficulties come first",
			v1.State{ExtraNonce2Size: 8, Named: true},
			v1.Announcement{Miners: map[uint16]bitcoin.Difficulty{1: 5}},
			[]string{"\x7f\x05", "mining.notify"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.a.Job = &j
			out := string(v1.Conn{State: &test.state, Session: new(session)}.Announce(nil, &test.a))
			rest := out
			for _, part := range test.want {
				_, behind, found := strings.Cut(rest, part)
				if !found {
					t.Fatalf("%q has no %q", out, part)
				}
				rest = behind
			}
		})
	}
}

// Where input is cut does not matter, and whatever comes the answers are JSON or frames.
func FuzzHandle(f *testing.F) {
	f.Add(lines(`{"id":1,"method":"mining.subscribe","params":["btccom-agent/1"]}`, `{"id":2,"method":"mining.authorize","params":["a.b","d=1"]}`), 20)
	f.Add(append(lines(`{"id":null,"method":"mining.configure","params":[["x"],{}]}`), agentwire.Submit{Session: 1}.AppendTo(nil)...), 70)
	f.Add([]byte("{\n\x7f\x02\x04\x00\x7f\x01"), 3)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		var whole, pieces session
		out, err := talk(&whole, in)
		again, errAgain := talk(&pieces, in, min(max(cut, 0), len(in)))
		if !bytes.Equal(out, again) || !errors.Is(err, errAgain) {
			t.Fatalf("%q, %v; in pieces %q, %v", out, err, again, errAgain)
		}
		if diff := cmp.Diff(whole.asked, pieces.asked); diff != "" {
			t.Fatal(diff)
		}
		if !whole.farm {
			codes(t, out)
		}
	})
}
