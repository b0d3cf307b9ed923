package switcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"btcpool/internal/agentwire"
	"btcpool/internal/guard"
	"btcpool/internal/poll"
	"btcpool/internal/proxyheader"
	"btcpool/internal/stratum"
)

// phase is how far a session has come.
type phase int

const (
	connected phase = iota
	subscribed
	finding // the user's chain is asked for
	joining // a server is asked to let the miner in
	mining
	phases
)

func (p phase) String() string {
	return [...]string{"connected", "subscribed", "finding", "joining", "mining"}[p]
}

// state is all there is to know of a miner: a plain value, without locks or references to anything outside of it.
type state struct {
	Phase phase
	ID    uint32 // of the session, its first extranonce1
	IP    netip.Addr
	Since time.Time
	Agent string // the software that the miner says it is
	Farm  bool   // it is a farm proxy that speaks BTCAgent's protocol
	// Patient software may be silent for long.
	Patient bool

	// ExtraNonce1, in hex, and the size of extranonce2 are what the miner was told last. TakesExtraNonce means that it
	// can be told others.
	ExtraNonce1     []byte
	ExtraNonce2Size int
	TakesExtraNonce bool
	// Rolls means that the miner has asked for version bits: Wanted is what it could roll, Told what it may.
	Rolls        bool
	Wanted, Told uint32
	Configure    []byte // the parameters of that question
	// Difficulty is what the miner was told last: parameters of mining.set_difficulty.
	Difficulty []byte

	// Name is whom the miner has logged in as first, Typed as it wrote that, LoginID the request that was, until it is
	// answered.
	Name     name
	Typed    string
	Password string
	LoginID  []byte
	// Others are further workers, as the miner wrote them, Suggestion is the difficulty that it wished for last. Servers
	// that it is moved to hear of both.
	Others     []worker
	Suggestion suggestion

	// Chain is the name of the one that the miner is to be on, Marks counts the servers it has been at.
	Chain string
	Marks uint8
	Pace  guard.Pace
	// Trusted means that the guard counts the session among the good ones of its address.
	Trusted bool
}

// worker is whom a miner has logged in.
type worker struct{ Name, Password string }

// suggestion is a request for a difficulty: its method, and JSON text of its parameters.
type suggestion struct{ Method, Params string }

// session is one miner's connection, with those to servers. All of it belongs to its loop.
type session struct {
	state

	srv  *Service
	loop *loop
	link poll.Link
	pos  int // index in loop.sessions; negative: the session has gone

	now  *upstream   // where the miner is; nil: nowhere
	next *upstream   // where it will be, once it has been let in there
	past []*upstream // where it was, which still take shares
	to   *chain      // where it is to be

	counted   *chain // whose gauge has the session
	lastChain *chain // that it was on

	moving   time.Time // when the switch that is under way was asked for; zero: none is
	lost     time.Time // since when there is no server; zero: there is one, or none was wanted yet
	retryAt  time.Time // when a server is tried again; zero: never
	tries    int       // in a row that failed
	avoid    *server   // that has failed last, or sends miners away
	sendAway time.Time // when a farm proxy is disconnected; zero: never
	used     bool      // Service.users counts the user as in use

	proxied  bool   // a PROXY header is awaited
	spoken   bool   // something has come
	pending  []byte // input that is not handled yet: the beginning of a message
	outbox   poll.Outbox
	readBy   time.Time // deadline of what is awaited, and then of closing the link
	strange  int       // bytes that came before the login
	junk     int       // lines that were no requests, since junkAt
	junkAt   time.Time
	pausedTo time.Time // zero: the session is read from

	admitted  bool
	full      bool // there was no id for the session
	closing   bool // nothing more is read
	cut       bool // nothing more is sent
	over      bool // the session is counted no more; its link may still have something to send
	lingering bool // input is dropped, up to discard bytes, so that the last answer is not lost
	discard   int
	why       error
}

const (
	// maxUnsent is what may wait for a miner, in bytes: dozens of jobs.
	maxUnsent = 256 << 10
	// maxStrange is what a login takes, in bytes.
	maxStrange  = 16 << 10
	maxDiscard  = 64 << 10
	lingerGrace = time.Second
	// maxJunk lines within junkWindow end a session: what comes is no Stratum.
	maxJunk    = 5
	junkWindow = time.Minute
	// maxOthers bounds further logins of a connection.
	maxOthers = 5000
	// maxAgent bounds what is kept of a miner's software, in bytes.
	maxAgent = 128
)

func (s *session) sessionID() string { return fmt.Sprintf("%08x", s.ID) }

func (s *session) setPhase(p phase) {
	s.srv.metrics.sessions[s.Phase].Add(-1)
	s.Phase = p
	s.srv.metrics.sessions[p].Add(1)
}

// reads reports whether the session takes more input. One that waits for its first server is not heard.
func (s *session) reads() bool {
	if s.over {
		return s.lingering
	}
	return !s.closing && s.Phase != finding && s.Phase != joining && s.pausedTo.IsZero()
}

// Serve goes on with a session whose miner's connection has something.
func (s *session) Serve(r poll.Readiness) {
	defer s.loop.settle(s)
	s.loop.begin()
	if r&poll.Broken != 0 {
		s.fail(nil)
		return
	}
	if r&poll.CanWrite != 0 {
		if err := s.outbox.Flush(s.link, s.loop.writeBy()); err != nil {
			s.fail(err)
			return
		}
	}
	if r&poll.CanRead != 0 {
		s.read()
	}
}

func (s *session) read() {
	if !s.reads() {
		return
	}
	in := s.loop.in[:]
	n, err := s.link.Read(in)
	s.srv.metrics.bytesIn.Add(float64(n))
	switch {
	case s.over:
		if s.discard -= n; err != nil {
			s.discard = 0
		}
	case errors.Is(err, poll.ErrSlow):
		s.fail(err)
	case err != nil:
		s.fail(nil)
	case n > 0:
		s.receive(in[:n])
	}
}

// receive handles what has arrived.
func (s *session) receive(in []byte) {
	if s.Phase < mining {
		if s.strange += len(in); s.strange > maxStrange {
			s.finish(errGibberish)
			return
		}
	}
	if len(s.pending) > 0 {
		s.pending = append(s.pending, in...)
		in = s.pending
	}
	messages := 0
	for !s.closing && len(in) > 0 && s.reads() {
		n := s.message(in)
		if n == 0 {
			break
		}
		in = in[n:]
		messages++
	}
	s.keep(in)
	if messages == 0 || s.closing {
		return
	}
	if s.Phase == mining {
		s.readBy = s.loop.now.Add(s.idleTimeout())
	}
	s.pace(messages)
}

// goOn handles what has arrived while the session waited.
func (s *session) goOn() {
	if len(s.pending) > 0 {
		in := s.pending
		s.pending = nil
		s.receive(in)
	}
}

// message handles the first message of in and returns its length, 0 if not all of it has come.
func (s *session) message(in []byte) int {
	if s.proxied {
		return s.proxyHeader(in)
	}
	if !s.spoken && in[0] != '{' && !isBlank(in[0]) {
		s.srv.metrics.badLines.Inc()
		s.fail(errDetect)
		return 0
	}
	if !s.spoken {
		s.spoken, s.readBy = true, s.Since.Add(s.srv.cfg.LoginTimeout.Std())
	}
	if in[0] == agentwire.Magic && s.Farm {
		return s.frame(in)
	}
	line, n, err := stratum.CutLine(in)
	if err != nil {
		s.srv.metrics.badLines.Inc()
		s.loop.out = refuseParams.append(s.loop.out, nil, s.srv.id())
		s.refused()
		s.finish(errLongLine)
		return 0
	}
	for len(line) > 0 && !s.closing {
		took := s.line(line)
		line = line[took:]
	}
	return n
}

func isBlank(c byte) bool {
	return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == 0xef || c == 0
}

// proxyHeader takes in whose connection it is.
func (s *session) proxyHeader(in []byte) int {
	from, n, err := proxyheader.Parse(in)
	if err != nil {
		s.srv.metrics.refused.WithLabelValues("proxy header").Inc()
		s.fail(errNotAdmitted)
		return 0
	}
	if n == 0 {
		return 0
	}
	s.proxied = false
	if from.IsValid() {
		s.IP = from
	}
	if refusal := s.srv.admit(s, s.loop.now); refusal != "" {
		s.srv.metrics.refused.WithLabelValues(refusal).Inc()
		s.fail(errNotAdmitted)
	}
	return n
}

// frame passes on a farm proxy's binary frame, whole.
func (s *session) frame(in []byte) int {
	_, n, err := agentwire.ParseFrame(in, agentwire.MaxFrame)
	switch {
	case err != nil:
		s.srv.metrics.badLines.Inc()
		s.fail(errGibberish)
	case n > 0 && s.now != nil: // before the login it has no effect
		s.now.send(in[:n])
	}
	return n
}

// line handles the first request on a line, and returns its length.
func (s *session) line(line []byte) int {
	req, n, err := stratum.ParseRequest(line)
	switch {
	case err == nil:
		s.request(req)
	case errors.Is(err, stratum.ErrBlank):
	case errors.Is(err, stratum.ErrAnswer): // to a question of the server's
		if s.now != nil {
			s.now.send(append(bytes.Clone(line[:n]), '\n'))
		}
	default:
		s.srv.metrics.badLines.Inc()
		s.refuse(req.ID, refuseParams)
		if errors.Is(err, stratum.ErrSyntax) {
			s.gibberish()
		}
	}
	return n
}

// gibberish ends a session that says too much of it.
func (s *session) gibberish() {
	if s.loop.now.Sub(s.junkAt) >= junkWindow {
		s.junkAt, s.junk = s.loop.now, 0
	}
	if s.junk++; s.junk >= maxJunk {
		s.refused()
		s.finish(errGibberish)
	}
}

// keep holds on to what is left of the input, in as little memory as that takes.
func (s *session) keep(rest []byte) {
	if len(rest) == 0 {
		s.pending = nil
		return
	}
	s.pending = append([]byte(nil), rest...)
}

func (s *session) idleTimeout() time.Duration {
	if s.Patient {
		return s.srv.cfg.LongTimeout.Std()
	}
	return s.srv.cfg.IdleTimeout.Std()
}

// pace makes a session wait that sends more than its share.
func (s *session) pace(messages int) {
	rate := s.srv.cfg.Limits.LinesPerSec
	if rate == 0 || s.Farm || !s.srv.guard.Watches(s.IP) {
		return
	}
	if pause := s.Pace.Spent(messages, rate+len(s.Others), s.loop.now); pause > 0 {
		s.srv.metrics.pauses.Inc()
		s.pausedTo = s.loop.now.Add(pause)
		s.loop.due[s] = struct{}{}
	}
}

// ask has a question answered that takes time; answer is called by the loop.
func (s *session) ask(question func(ctx context.Context) (answer func())) {
	s.srv.goroutines.Go(func() {
		answer := question(s.srv.serving)
		s.loop.Post(func() { s.loop.visit(s, answer) })
	})
}

// refuse answers a request with an error.
func (s *session) refuse(id []byte, why refusal) {
	s.srv.metrics.refusals.WithLabelValues(why.reason).Inc()
	s.loop.out = why.append(s.loop.out, id, s.srv.id())
}

// refused has the miner learn the last answer before the session ends.
func (s *session) refused() { s.discard = maxDiscard }

// finish ends the session when the miner has what it was sent.
func (s *session) finish(why error) {
	if !s.closing {
		s.closing, s.why = true, why
	}
}

// fail ends the session now. Nothing more is sent.
func (s *session) fail(why error) {
	s.finish(why)
	s.cut = true
}

// linger reports whether the link of a session that is over is to stay open for a moment: closing it with unread input
// would reset the connection and could take the last answer with it.
func (s *session) linger() bool {
	if s.cut || s.discard <= 0 {
		return false
	}
	if !s.lingering {
		s.lingering = s.link.CloseWrite()
		s.readBy = s.loop.now.Add(lingerGrace)
	}
	return s.lingering
}

// check looks at the deadlines of a session.
func (s *session) check() {
	late := s.loop.now.After(s.readBy)
	switch {
	case s.outbox.Late(s.loop.now):
		s.fail(poll.ErrSlow)
	case s.over && late:
		s.fail(nil)
	case s.over:
	case late && s.Phase != finding && s.Phase != joining:
		s.finish(errTimeout)
	default:
		s.checkServers()
	}
}

// waits reports whether something of the session is to be done at a time.
func (s *session) waits() bool {
	return s.pos >= 0 && !s.over && (!s.pausedTo.IsZero() || !s.retryAt.IsZero() || !s.sendAway.IsZero() || !s.lost.IsZero() || len(s.past) > 0)
}

// act does what is due.
func (s *session) act() {
	now := s.loop.now
	if !s.pausedTo.IsZero() && !now.Before(s.pausedTo) {
		s.pausedTo = time.Time{}
		s.goOn()
	}
	if !s.sendAway.IsZero() && !now.Before(s.sendAway) {
		s.finish(errSwitched)
		return
	}
	s.retire()
	if !s.lost.IsZero() && now.Sub(s.lost) >= s.srv.cfg.Hold.Std() {
		s.abandon()
		return
	}
	if !s.retryAt.IsZero() && !now.Before(s.retryAt) {
		s.retryAt = time.Time{}
		s.join()
	}
}

// wake has the loop look at what is due.
func (s *session) wake() { s.loop.due[s] = struct{}{} }
