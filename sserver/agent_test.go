package sserver_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/agentwire"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/sserver"
)

// agent is a client that speaks for miners.
type agent struct{ *client }

// agent returns one that has logged in as BTCAgent does, and its first job.
func (p *pool) agent(password string, capabilities ...string) (agent, work) {
	p.tb.Helper()
	a := agent{p.dial()}
	a.mustCall(nil, "mining.configure", []string{"version-rolling"}, map[string]any{"version-rolling.mask": "ffffffff", "version-rolling.min-bit-count": 0})
	var result []any
	a.mustCall(&result, "mining.subscribe", "btccom-agent/2.0.0-mu")
	a.extraNonce1, a.nonceBytes = result[1].(string), int(result[2].(float64))
	a.mustCall(nil, "mining.authorize", "alice", password)
	if len(capabilities) > 0 {
		a.mustCall(nil, "agent.get_capabilities", capabilities)
	}
	return a, a.work()
}

// easy is what an agent's miners find here: they have a difficulty of at least 1, which takes too long without the
// simulator.
const easy = 1.0 / (1 << 20)

func (a agent) share(w work, extraNonce2 uint64) find {
	w.difficulty = easy
	return a.client.share(w, extraNonce2)
}

// simulatorConfig is that of a pool that takes shares of any difficulty.
func simulatorConfig(t *testing.T) sserver.Config {
	cfg := testConfig(t)
	cfg.Development.Simulator = true
	return cfg
}

type frameText interface{ AppendTo(dst []byte) []byte }

func (a agent) frame(frames ...frameText) {
	a.tb.Helper()
	var text []byte
	for _, f := range frames {
		text = f.AppendTo(text)
	}
	a.send(string(text))
}

// readFrame returns the frame that must come next, but for signs of life, which come when the machine is slow.
func (a agent) readFrame() agentwire.Frame {
	a.tb.Helper()
	for {
		f := a.anyFrame()
		if d, err := agentwire.ParseSetDifficulty(f); err != nil || len(d.Sessions) > 0 {
			return f
		}
	}
}

func (a agent) anyFrame() agentwire.Frame {
	a.tb.Helper()
	if err := a.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		a.tb.Fatal(err)
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(a.r, head); err != nil {
		a.tb.Fatal(err)
	}
	if head[0] != agentwire.Magic {
		line, _ := a.r.ReadString('\n')
		a.tb.Fatalf("%q is no frame", string(head)+line)
	}
	body := make([]byte, binary.LittleEndian.Uint16(head[2:])-4)
	if _, err := io.ReadFull(a.r, body); err != nil {
		a.tb.Fatal(err)
	}
	return agentwire.Frame{Command: agentwire.Command(head[1]), Body: body}
}

// framed is a share of w by a miner.
func (a agent) framed(w work, miner agentwire.Session, extraNonce2 uint32) agentwire.Submit {
	a.tb.Helper()
	f := a.share(w, miner.ExtraNonce2(extraNonce2))
	var number uint8
	if _, err := fmt.Sscan(w.id, &number); err != nil {
		a.tb.Fatal(err)
	}
	return agentwire.Submit{JobID: number, Session: miner, ExtraNonce2: extraNonce2, Nonce: unhex32(a.tb, f.nonce), Time: unhex32(a.tb, w.time)}
}

func (a agent) wantVerdicts(first uint16, want ...share.Status) {
	a.tb.Helper()
	var wanted, got []agentwire.SubmitResponse
	for i, status := range want {
		wanted = append(wanted, agentwire.SubmitResponse{Index: first + uint16(i), Status: status})
		r, err := agentwire.ParseSubmitResponse(a.readFrame())
		if err != nil {
			a.tb.Fatal(err)
		}
		got = append(got, r)
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		a.tb.Error(diff)
	}
}

func TestAgentCapabilities(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	c := p.dial()
	c.send(`{"id":"conn_test","method":"agent.get_capabilities","params":[["verrol"]]}` + "\n")
	line, err := c.readLine()
	if want := `{"id":"conn_test","result":{"capabilities":["verrol","subres"]}}` + "\n"; err != nil || line != want {
		t.Errorf("answer %q, %v", line, err)
	}
}

// The four submit commands, their verdicts, and who is credited.
func TestAgentShares(t *testing.T) {
	t.Parallel()
	cfg := simulatorConfig(t)
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	a, w := p.agent("", "verrol", "subres")
	a.frame(agentwire.Register{Session: 3, Agent: "cgminer/4", Worker: "s3"}, agentwire.Register{Session: 0xFFFE, Worker: "rig-with-a-name-that-is-too-long"})

	timed := a.framed(w, 3, 1)
	untimed := a.framed(w, agentwire.MaxSession, 1)
	untimed.Time = 0
	const mask, bits = 0x1fffe000, 0x00c0a000
	rolled := agentwire.Submit{JobID: timed.JobID, Session: 3, ExtraNonce2: 7, VersionBits: bits, Rolled: true, Time: timed.Time}
	rolled.Nonce = a.mine(w, a.header(w, agentwire.Session(3).ExtraNonce2(7), unhex32(t, w.version)&^mask|bits, timed.Time), easy, 1e30)
	rolledUntimed := rolled
	rolledUntimed.Time, rolledUntimed.ExtraNonce2 = 0, 8
	rolledUntimed.Nonce = a.mine(w, a.header(w, agentwire.Session(3).ExtraNonce2(8), unhex32(t, w.version)&^mask|bits, timed.Time), easy, 1e30)
	stranger, unknown, illegal := timed, timed, rolled
	stranger.Session = 4
	unknown.JobID += 9
	illegal.VersionBits = 1
	a.frame(timed, untimed, rolled, rolledUntimed, stranger, timed, unknown, illegal)
	a.wantVerdicts(0, share.StatusAccept, share.StatusAccept, share.StatusAccept, share.StatusAccept,
		share.StatusDuplicate, share.StatusJobNotFoundOrStale, share.StatusIllegalVersionMask)

	p.TakeJob(p.newJob(2, 101))
	a.work()
	a.frame(a.framed(w, 3, 5))
	a.wantVerdicts(7, share.StatusJobNotFoundOrStale)

	a.frame(agentwire.Unregister{Session: 3}, agentwire.Unregister{Session: 9}, timed)
	a.mustCall(nil, "mining.ping")
	if got := p.metric("frames_ignored_total", "reason", "unregistered"); got != 3 {
		t.Errorf("%v frames ignored", got)
	}
	a.conn.Close()
	testkit.Eventually(t, "disconnect", func() bool { return p.Sessions() == 0 })
	p.stop()

	var shares []string
	for _, value := range readTopic(t, cfg, cfg.Kafka.Topics.Share, 6) {
		var s share.Share
		if err := s.Parse(value); err != nil {
			t.Fatal(err)
		}
		shares = append(shares, fmt.Sprint(s.UserID, " ", s.WorkerID, " ", int32(s.Status)))
	}
	s3, long := share.WorkerID("s3"), share.WorkerID("rig-with-a-name-that")
	line := func(worker int64, status share.Status) string { return fmt.Sprint(7, " ", worker, " ", int32(status)) }
	if diff := cmp.Diff([]string{
		line(s3, share.StatusAccept), line(long, share.StatusAccept), line(s3, share.StatusAccept), line(s3, share.StatusAccept),
		line(s3, share.StatusIllegalVersionMask), line(s3, share.StatusStale),
	}, shares); diff != "" {
		t.Error(diff)
	}

	var events []string
	for _, e := range minerEvents(t, cfg, 6) {
		events = append(events, strings.Join([]string{string(e.Action), e.UserName, e.WorkerName, e.Agent, e.Desc}, " "))
	}
	if diff := cmp.Diff([]string{
		"miner_connect alice __default__ btccom-agent/2.0.0-mu new_conn",
		"miner_connect alice s3 cgminer/4 from_btcagent",
		"miner_connect alice rig-with-a-name-that  from_btcagent",
		"miner_dead alice s3 cgminer/4 from_btcagent",
		"miner_dead alice rig-with-a-name-that  from_btcagent",
		"miner_dead alice __default__ btccom-agent/2.0.0-mu del_conn",
	}, events); diff != "" {
		t.Error(diff)
	}
}

// Without the capability there are no frames for verdicts; with it, asked for before the login, there are. Lines and
// frames may be mixed.
func TestAgentResponses(t *testing.T) {
	t.Parallel()
	p := startPool(t, simulatorConfig(t))
	p.TakeJob(p.newJob(1, 100))
	quiet, w := p.agent("")
	quiet.frame(agentwire.Register{Session: 1, Worker: "w"}, quiet.framed(w, 1, 1))
	quiet.wantSubmit(quiet.share(w, 1<<40), 0) // by itself
	if got := p.metric("shares_total", "code", "0"); got != 2 {
		t.Errorf("%v shares accepted", got)
	}

	early := agent{p.dial()}
	early.mustCall(nil, "agent.get_capabilities", []string{"verrol", "subres"})
	var result []any
	early.mustCall(&result, "mining.subscribe", "btccom-agent/1.0.0-su")
	early.extraNonce1 = result[1].(string)
	early.mustCall(nil, "mining.authorize", "alice", "")
	early.mustCall(nil, "agent.get_capabilities", []string{"verrol"})
	w = early.work()
	text := agentwire.Register{Session: 1, Worker: "w"}.AppendTo(nil)
	text = append(text, pingLine+"\n"...)
	text = early.framed(w, 1, 1).AppendTo(text)
	for i := range text { // in pieces
		early.send(string(text[i : i+1]))
	}
	if line, err := early.readLine(); err != nil || strings.TrimSpace(line) != pongLine {
		t.Errorf("%q, %v", line, err)
	}
	early.wantVerdicts(0, share.StatusAccept)
}

// A second registration takes the place of the first.
func TestAgentRegistersAgain(t *testing.T) {
	t.Parallel()
	cfg := simulatorConfig(t)
	cfg.MaxAgentMiners = 1
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	a, w := p.agent("", "subres")
	a.frame(agentwire.Register{Session: 1, Worker: "old"}, agentwire.Register{Session: 1, Worker: "new"}, agentwire.Register{Session: 2, Worker: "one too many"})
	a.frame(a.framed(w, 2, 1), a.framed(w, 1, 1))
	a.wantVerdicts(0, share.StatusAccept)
	if got := p.metric("frames_ignored_total", "reason", "limit"); got != 1 {
		t.Errorf("%v registrations ignored", got)
	}
	p.stop()
	var s share.Share
	if err := s.Parse(readTopic(t, cfg, cfg.Kafka.Topics.Share, 1)[0]); err != nil || s.WorkerID != share.WorkerID("new") {
		t.Errorf("share %+v, %v", s, err)
	}
}

// A link has as many miners as there are numbers. Each works, one that takes a number takes it over, all are lowered while
// they are silent, and all are seen to come and, at once, to go.
func TestAgentOfManyMiners(t *testing.T) {
	t.Parallel()
	cfg := simulatorConfig(t)
	cfg.ShareInterval, cfg.MiningNotifyInterval = 1e9, 1e9
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	a, w := p.agent("d=64", "subres")
	lowered := make(map[agentwire.Session]bool)
	response := func() (r agentwire.SubmitResponse, ok bool) { // or something else that comes
		if head, err := a.r.Peek(1); err == nil && head[0] != agentwire.Magic {
			a.note()
			return r, false
		}
		f := a.readFrame()
		if r, err := agentwire.ParseSubmitResponse(f); err == nil {
			return r, true
		}
		d, err := agentwire.ParseSetDifficulty(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, number := range d.Sessions {
			lowered[number] = true
		}
		return r, false
	}
	wantAccepted := func(first, n uint16) {
		t.Helper()
		for index := first; index < first+n; {
			r, ok := response()
			if !ok {
				continue
			}
			if want := (agentwire.SubmitResponse{Index: index, Status: share.StatusAccept}); r != want {
				t.Fatalf("answer %+v, want %+v", r, want)
			}
			index++
		}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := time.Now()
	const miners = int(agentwire.MaxSession) + 1
	var text []byte
	for number := range miners {
		text = agentwire.Register{Session: agentwire.Session(number), Agent: "cgminer/4.12.1", Worker: fmt.Sprint("rig", number)}.AppendTo(text)
	}
	text = append(text, "\x7f\x01\x08\x00\xff\xff\x00\x00"...) // the number that none may have
	a.send(string(text))
	a.frame(a.framed(w, agentwire.MaxSession, 1), a.framed(w, 0, 1), a.framed(w, 0x8000, 1))
	wantAccepted(0, 3)
	took := time.Since(begin)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d miners registered in %s, %d bytes of heap each", miners, took, (after.HeapAlloc-before.HeapAlloc)/uint64(miners))

	a.frame(agentwire.Register{Session: 0x8000, Worker: "again"}, a.framed(w, 0x8000, 2))
	wantAccepted(3, 1)
	if got := p.metric("bad_lines_total"); got != 1 {
		t.Errorf("%v bad frames", got)
	}
	for len(lowered) < miners {
		response()
	}

	a.conn.Close()
	testkit.Eventually(t, "disconnect", func() bool { return p.Sessions() == 0 })
	const others = 2 // the agent, and who was replaced
	present := make(map[string]int)
	for _, e := range minerEvents(t, cfg, 2*(miners+others)) { // while the pool runs: at its end it waits for them no more than a moment
		if e.Action == share.MinerConnect {
			present[e.WorkerName]++
		} else {
			present[e.WorkerName]--
		}
	}
	p.stop()
	if got := p.metric("events_dropped_total"); got != 0 {
		t.Errorf("%v events dropped", got)
	}
	if len(present) != miners+others {
		t.Errorf("%d workers came", len(present))
	}
	for name, n := range present {
		if n != 0 {
			t.Errorf("%s is there %d times after the end", name, n)
		}
	}
	credited := make(map[int64]int)
	for _, value := range readTopic(t, cfg, cfg.Kafka.Topics.Share, 4) {
		var s share.Share
		if err := s.Parse(value); err != nil {
			t.Fatal(err)
		}
		credited[s.WorkerID]++
	}
	if diff := cmp.Diff(map[int64]int{
		share.WorkerID("rig0"): 1, share.WorkerID("rig32768"): 1, share.WorkerID("rig65534"): 1, share.WorkerID("again"): 1,
	}, credited); diff != "" {
		t.Error(diff)
	}
}

// Silent miners behind an agent are lowered, in one frame a difficulty, right before the next job, and not below 1. The
// agent's own difficulty stays.
func TestAgentDifficulties(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.ShareInterval, cfg.MiningNotifyInterval = 1e9, 1e9
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	a, w := p.agent("d=64")
	if w.difficulty != 64 {
		t.Fatalf("difficulty %v", w.difficulty)
	}
	a.frame(agentwire.Register{Session: 5, Worker: "a"}, agentwire.Register{Session: 2, Worker: "b"})
	for { // jobs until something changes
		if head, err := a.r.Peek(1); err != nil || head[0] == agentwire.Magic {
			break
		}
		if m := a.note(); m.Method != "mining.notify" {
			t.Fatalf("note %+v", m)
		}
	}
	got, err := agentwire.ParseSetDifficulty(a.readFrame())
	if diff := cmp.Diff(agentwire.SetDifficulty{Difficulty: 0, Sessions: []agentwire.Session{2, 5}}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if m := a.note(); m.Method != "mining.notify" {
		t.Errorf("note %+v behind the difficulty", m)
	}
}

// An agent hears something within 15 s of its login, and soon again, however rarely
// jobs come: it would throw its miners off.
func TestAgentIsReassured(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	inTime := func() bool {
		a, _ := p.agent("")
		defer a.conn.Close()
		for range 2 {
			start := time.Now()
			got, err := agentwire.ParseSetDifficulty(a.anyFrame())
			if err != nil || len(got.Sessions) > 0 {
				t.Errorf("got %+v, %v", got, err)
			}
			if waited := time.Since(start); waited > 14*time.Second {
				t.Logf("silent for %s", waited)
				return false
			}
		}
		return true
	}
	for tries := 0; !inTime(); tries++ { // the machine itself may be late now and then
		if tries == 3 {
			t.Fatal("never in time")
		}
	}
}

// An agent reads difficulties as whole numbers: one below 1 is 0 to it, and it never lets its miners in.
func TestAgentHearsOneAtLeast(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	for _, password := range []string{"", "d=0.001", "d=0.001,md=0.0001"} {
		if _, w := p.agent(password); w.difficulty != 1 {
			t.Errorf("%q: difficulty %v", password, w.difficulty)
		}
	}
}

func TestBadFrames(t *testing.T) {
	t.Parallel()
	p := startPool(t, simulatorConfig(t))
	p.TakeJob(p.newJob(1, 100))

	// Nobody can say where the next frame begins.
	a, _ := p.agent("")
	a.send("\x7f\x01\x03\x00")
	a.wantEnd()
	testkit.Eventually(t, "count", func() bool { return p.metric("disconnects_total", "reason", "bad frame") == 1 })

	// Nobody can say how many shares are in a batch that is too long, or wrong in the middle.
	shares := agentwire.Shares{JobID: 1, Rows: slices.Repeat([]agentwire.Submit{{Session: 1}}, 4096)}
	long, _ := shares.AppendTo(nil, agentwire.MaxFrame)
	torn, _ := agentwire.Shares{JobID: 1, Rows: shares.Rows[:2]}.AppendTo(nil, agentwire.MaxFrame)
	torn = torn[:len(torn)-1]
	binary.LittleEndian.PutUint16(torn[2:], uint16(len(torn)))
	for i, batch := range [][]byte{long, torn} {
		a, _ = p.agent("", "subres", "batch")
		a.send(string(batch))
		if i == 1 {
			if v, err := agentwire.ParseVerdicts(a.readFrame()); err != nil || len(v.Statuses) != 1 {
				t.Errorf("verdicts %v, %v", v, err)
			}
		}
		a.wantEnd()
		testkit.Eventually(t, "count", func() bool { return p.metric("disconnects_total", "reason", "bad frame") == float64(2+i) })
	}

	// Malformed: skipped and counted, however many there are.
	a, w := p.agent("", "subres")
	a.send("\x7f\x44\x04\x00") // unknown: nothing wrong with it
	for range 20 {
		a.send("\x7f\x01\x06\x00\xff\xff")
	}
	a.frame(agentwire.Register{Session: 1, Worker: "w"}, a.framed(w, 1, 1))
	a.wantVerdicts(0, share.StatusAccept)
	if got := p.metric("bad_lines_total"); got != 20 {
		t.Errorf("%v bad frames", got)
	}

	// Of a miner that is no agent: a few.
	c, _ := p.miner()
	for i := range 5 {
		c.mustCall(nil, "mining.ping")
		c.send(string(agentwire.Register{Session: agentwire.Session(i), Worker: "w"}.AppendTo(nil)))
	}
	c.wantEnd()
	c, _ = p.miner()
	c.send("\x7f\x01\x00\x80")
	c.wantEnd()
}

// BTCAgent 0.9 registers its miners before it logs in, some even before it says what it is, and again when it has.
func TestFramesBeforeTheLogin(t *testing.T) {
	t.Parallel()
	p := startPool(t, simulatorConfig(t))
	p.TakeJob(p.newJob(1, 100))
	a := agent{p.dial()}
	const miners = 500
	var registered strings.Builder
	for i := range miners {
		registered.Write(agentwire.Register{Session: agentwire.Session(i), Agent: "cgminer/4.12", Worker: fmt.Sprint("rig", i)}.AppendTo(nil))
	}
	a.send(registered.String())
	var subscribed []any
	a.mustCall(&subscribed, "mining.subscribe", "btccom-agent/0.9.0-mu")
	a.extraNonce1, a.nonceBytes = subscribed[1].(string), int(subscribed[2].(float64))
	a.send(registered.String())
	a.mustCall(nil, "mining.authorize", "alice", "")
	a.mustCall(nil, "agent.get_capabilities", []string{"subres"})
	a.send(registered.String())
	w := a.work()
	a.frame(a.framed(w, 0, 1), a.framed(w, miners-1, 1))
	a.wantVerdicts(0, share.StatusAccept, share.StatusAccept)
	if early, bad := p.metric("frames_ignored_total", "reason", "early"), p.metric("bad_lines_total"); early != 2*miners || bad != 0 {
		t.Errorf("%v early frames, %v bad lines", early, bad)
	}
}

// A frame is skipped by the length that its header says, whatever is in it. A name that is too long is cut, and its
// miner works.
func TestLongFrames(t *testing.T) {
	t.Parallel()
	cfg := simulatorConfig(t)
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	a, w := p.agent("", "subres")
	a.frame(agentwire.Register{Session: 1, Worker: "good"})
	long := func(command agentwire.Command, size int, begin string) string {
		head := binary.LittleEndian.AppendUint16([]byte{agentwire.Magic, byte(command)}, uint16(size))
		return string(head) + begin + strings.Repeat("x", size-len(head)-len(begin))
	}
	want := []share.Status{share.StatusAccept}
	a.frame(a.framed(w, 1, 0))
	for i, size := range []int{1025, 2018, 4096, 4097, 65535} {
		miner := agentwire.Session(2 + i)
		a.send(long(agentwire.CmdRegister, size, string([]byte{byte(miner), 0})+"cgminer\x00rig"))
		a.send(long(0x44, size, ""))
		a.frame(a.framed(w, miner, uint32(i)), a.framed(w, 1, uint32(1+i)))
		want = append(want, share.StatusAccept, share.StatusAccept)
	}
	a.wantVerdicts(0, want...)
	if got := p.metric("frames_cut_total"); got != 4 {
		t.Errorf("%v frames cut", got)
	}
}

// Bad lines end a session that sends many at a time, not one that sends one now and then.
func TestBadLinesNowAndThen(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	for range 10 {
		for range 4 {
			c.send("no JSON\n")
			c.read()
		}
		p.ForgetBadInputs()
	}
	c.wantSubmit(c.share(w, 1), 0)
}

// An agent's connection goes on with one that broke: what was found for that counts, what was counted is known, and each
// miner has its difficulty again.
func TestAgentGoesOn(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.MinDifficulty = easy
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	login := func(before, password string) (agent, work) {
		t.Helper()
		a := agent{p.dial()}
		a.mustCall(nil, "agent.get_capabilities", []string{"verrol", "subres", "smalldiff", "session"})
		var result []any
		if before == "" {
			a.mustCall(&result, "mining.subscribe", "btccom-agent/3.0.0-mu")
		} else {
			a.mustCall(&result, "mining.subscribe", "btccom-agent/3.0.0-mu", before)
		}
		a.extraNonce1, a.nonceBytes = result[1].(string), int(result[2].(float64))
		a.mustCall(nil, "mining.authorize", "alice", password)
		return a, a.work()
	}
	old, w := login("", "d=0.0000009")
	old.frame(agentwire.Register{Session: 3, Worker: "a"}, agentwire.Register{Session: 4, Worker: "b"})
	counted, late, other := old.framed(w, 3, 1), old.framed(w, 3, 2), old.framed(w, 4, 3)
	old.frame(counted)
	old.wantVerdicts(0, share.StatusAccept)
	if thief, _ := login(old.extraNonce1, ""); thief.extraNonce1 == old.extraNonce1 {
		t.Fatal("an extranonce1 given twice")
	}
	old.conn.Close()
	testkit.Eventually(t, "disconnect", func() bool { return p.Sessions() == 1 })
	miner := p.dial()
	miner.resume(old.extraNonce1)
	if miner.extraNonce1 == old.extraNonce1 {
		t.Fatal("a miner goes on with an agent's session")
	}

	a, next := login(old.extraNonce1, "d=64")
	if a.extraNonce1 != old.extraNonce1 || next.id == w.id || next.difficulty != 64 {
		t.Fatalf("%s goes on as %s with %+v", old.extraNonce1, a.extraNonce1, next)
	}
	a.frame(agentwire.Register{Session: 3, Worker: "a"}, agentwire.Register{Session: 4, Worker: "somebody else"})
	a.frame(counted, late, other, a.framed(next, 3, 4))
	a.wantVerdicts(0, share.StatusDuplicate, share.StatusAccept, share.StatusLowDifficulty, share.StatusLowDifficulty)
	p.TakeJob(p.newJob(2, 101))
	got, err := agentwire.ParseSetDifficulty(a.readFrame())
	if diff := cmp.Diff(agentwire.SetDifficulty{Difficulty: -20, Sessions: []agentwire.Session{3}}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	// What was not registered before the next break is not lost with it.
	a.conn.Close()
	testkit.Eventually(t, "disconnect", func() bool { return p.Sessions() == 2 })
	again, _ := login(old.extraNonce1, "")
	if again.extraNonce1 != old.extraNonce1 {
		t.Error("not a second time")
	}
}

// An agent whose connection hangs, so that the pool does not see its end, ends it by the session's key, and goes on with it
// at once. Nobody else can.
func TestAgentEndsSession(t *testing.T) {
	t.Parallel()
	cfg := simulatorConfig(t)
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	old, w := p.agent("", "subres", "session")
	type capabilities struct {
		Key string `json:"session_key"`
	}
	var has, none capabilities
	old.mustCall(&has, "agent.get_capabilities", []string{"verrol", "session"})
	old.mustCall(&none, "agent.get_capabilities", []string{"verrol", "batch"})
	if len(has.Key) != 16 || none.Key != "" {
		t.Fatalf("keys %q and %q", has.Key, none.Key)
	}
	old.frame(agentwire.Register{Session: 3, Worker: "a"})
	late := old.framed(w, 3, 1)

	a := agent{p.dial()}
	var own capabilities
	a.mustCall(&own, "agent.get_capabilities", []string{"subres", "session"})
	for _, params := range [][]any{
		{old.extraNonce1, own.Key},
		{old.extraNonce1, "0000000000000000"},
		{old.extraNonce1},
		{"00000000", has.Key},
	} {
		if m := a.call("agent.end_session", params...); m.Error == nil {
			t.Errorf("%v ends a session", params)
		}
	}
	old.mustCall(nil, "mining.ping")
	// All at once, as an agent says it: nothing is handled before the old session is over.
	a.send(`{"id":"end","method":"agent.end_session","params":["` + old.extraNonce1 + `","` + has.Key + `"]}` + "\n" +
		`{"id":"sub","method":"mining.subscribe","params":["btccom-agent/3.0.0-mu","` + old.extraNonce1 + `"]}` + "\n")
	for _, want := range []string{`{"id":"end","result":true,"error":null}`, old.extraNonce1} {
		if line, err := a.readLine(); err != nil || !strings.Contains(line, want) {
			t.Fatalf("%q, %v, want %s", line, err, want)
		}
	}
	a.extraNonce1, a.nonceBytes = old.extraNonce1, old.nonceBytes
	a.mustCall(nil, "mining.authorize", "alice", "")
	a.work()
	a.frame(agentwire.Register{Session: 3, Worker: "a"}, late)
	a.wantVerdicts(0, share.StatusAccept)
	old.wantEnd()
	if got := p.metric("disconnects_total", "reason", "replaced"); got != 1 {
		t.Errorf("%v sessions replaced", got)
	}
	// Of one that is over there is nothing to end, and its own it does not end.
	a.mustCall(nil, "agent.end_session", old.extraNonce1, has.Key)
	a.mustCall(nil, "mining.ping")
}
