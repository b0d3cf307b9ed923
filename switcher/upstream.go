package switcher

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"btcpool/internal/agentwire"
	"btcpool/internal/poll"
	"btcpool/internal/share"
	"btcpool/internal/stratum"
)

// upstream is a session's connection to a server. All of it belongs to the session's loop.
type upstream struct {
	upState

	session *session // nil: nothing more is wanted of the server
	loop    *loop
	chain   *chain
	server  *server
	link    poll.Link // nil: it is being reached
	cancel  context.CancelFunc
	pending []byte
	outbox  poll.Outbox
	broken  error // why nothing more can be sent
	over    bool
	began   time.Time
	heard   time.Time // when something came last
	until   time.Time // when it is let go of, once it is past
}

// upState is what there is to know of such a connection: a plain value.
type upState struct {
	ext             stratum.Extension // what is put into jobs and taken out of shares
	extraNonce1     []byte            // hex, as the server has it
	extraNonce2Size int
	asIs            bool // both are told to the miner
	mask            uint32
	suffixed        bool // the user is known there by its suffixed name only
	subscribed      bool
	authorized      bool
	working         bool // it has given a job
	difficulty      []byte
	// early are the lines that came before the miner was there, which are for it.
	early     []byte
	next      uint64
	questions map[uint64]question
}

// question is a request that a server has not answered yet.
type question struct {
	id     []byte // of the miner's request
	kind   asked
	worker worker // of askedAuthorize
	at     time.Time
}

// asked is what kind of request.
type asked uint8

const (
	askedElse asked = iota
	askedSubmit
	askedConfigure
	askedAuthorize
)

// Numbers of the requests that a login consists of. Those of the miner come behind them.
const (
	numberCapabilities = iota + 1
	numberConfigure
	numberSubscribe
	numberAuthorize
	numberSuffixed
	numberQuiet // of requests whose answers are of no interest
	firstNumber = 16
)

const (
	// maxServerLine is the longest line a server may send.
	maxServerLine = 128 << 10
	// maxEarly is what may come before the miner is there, in bytes.
	maxEarly = 64 << 10
	// maxQuestions may wait for a server's answers; maxUnsentUp is what may wait for the server, in bytes.
	maxQuestions = 1024
	maxUnsentUp  = 256 << 10
	// maxPast is at how many servers a miner was that still take its shares.
	maxPast = 2
	// silence is after what time without a word a server is left that does not answer probes either.
	silence = 30 * time.Second
)

var (
	errEnded      = errors.New("the server has ended the connection")
	errLate       = errors.New("the server has not let the miner in in time, or has no job")
	errNoStratum  = errors.New("the server sends no Stratum")
	errNotAllowed = errors.New("the server refuses the user")
	errTooMuch    = errors.New("the server says too much before the miner is there")
)

// join has the miner let in by a server of the chain that it is to be on.
func (s *session) join() {
	if s.next != nil {
		s.next.drop()
		s.next = nil
	}
	s.retryAt = time.Time{}
	to := s.to.choose(s.loop.now, s.avoid)
	ctx, cancel := context.WithCancel(s.srv.serving)
	u := &upstream{session: s, loop: s.loop, chain: s.to, server: to, cancel: cancel, began: s.loop.now}
	u.next = firstNumber
	s.next = u
	srv, from := s.srv, netip.AddrPortFrom(s.IP, 0)
	srv.goroutines.Go(func() {
		link, err := srv.link(ctx, to, from)
		if !u.loop.Post(func() { u.reached(link, err) }) && err == nil {
			link.Close()
		}
	})
}

// reached logs in, or says that the server cannot be reached.
func (u *upstream) reached(link poll.Link, err error) {
	s := u.session
	if s == nil || u.over {
		if err == nil {
			link.Close()
		}
		return
	}
	defer u.loop.settle(s)
	u.loop.begin()
	if err == nil {
		u.link = link
		err = link.Attach(u.loop.Loop, u)
	}
	if err != nil {
		s.srv.told(u.chain, u.server, err)
		u.fail(err)
		return
	}
	u.heard = u.loop.now
	u.login()
}

// login sends all that a login consists of.
func (u *upstream) login() {
	s := u.session
	out := u.loop.up[:0]
	if s.Farm {
		out = stratum.AppendRequest(out, numberCapabilities, []byte("agent.get_capabilities"), []byte(`[["verrol","subres"]]`))
	}
	if s.Configure != nil {
		out = stratum.AppendRequest(out, numberConfigure, []byte("mining.configure"), s.Configure)
	}
	if u.chain.Cooperative {
		var ip uint32
		if s.IP.Is4() {
			v4 := s.IP.As4()
			ip = binary.BigEndian.Uint32(v4[:])
		}
		out = stratum.AppendSubscribeAs(out, numberSubscribe, s.Agent, s.ID, ip)
	} else {
		out = stratum.AppendSubscribe(out, numberSubscribe, s.Agent, "")
	}
	if s.TakesExtraNonce {
		out = stratum.AppendRequest(out, numberQuiet, []byte("mining.extranonce.subscribe"), nil)
	}
	if s.Suggestion.Method != "" {
		out = stratum.AppendRequest(out, numberQuiet, []byte(s.Suggestion.Method), []byte(s.Suggestion.Params))
	}
	out = stratum.AppendAuthorize(out, numberAuthorize, s.Name.String(), s.Password)
	u.send(out)
	u.loop.up = out[:0]
}

// send does not wait and does not keep b. What is wrong with the connection is dealt with when the session is settled, so
// that whoever sends can go on.
func (u *upstream) send(b []byte) {
	if u.over || u.link == nil || u.broken != nil {
		return
	}
	u.loop.srv.metrics.bytesUp.Add(float64(len(b)))
	u.broken = u.outbox.Send(u.link, b, maxUnsentUp, u.loop.writeBy())
}

// leaveBroken ends connections to servers that take nothing more.
func (s *session) leaveBroken() {
	for u := s.broken(); u != nil; u = s.broken() {
		u.fail(u.broken)
	}
}

func (s *session) broken() *upstream {
	for u := range s.servers {
		if u.broken != nil && !u.over {
			return u
		}
	}
	return nil
}

// question notes a request, and returns the number that it is sent under; false if too many wait.
func (u *upstream) question(q question) (uint64, bool) {
	if len(u.questions) >= maxQuestions {
		return 0, false
	}
	if u.questions == nil {
		u.questions = make(map[uint64]question)
	}
	q.at = u.loop.now
	number := u.next
	u.next++
	u.questions[number] = q
	return number, true
}

// named is the name by which the server knows a worker.
func (u *upstream) named(full string) string {
	s := u.session
	own, why := splitName(full, s.srv.cfg.Users.CaseInsensitive)
	if why != nil || !strings.EqualFold(own.user, s.Name.user) {
		return share.CleanName(full)
	}
	own.user = s.Name.user
	if u.suffixed {
		return own.suffixed(u.chain.suffix())
	}
	return own.String()
}

// worker is the name of whom a share, by its parameters, is for; nil: as it is written.
func (u *upstream) worker(params []byte) []byte {
	full, _, err := stratum.ParseAuthorize(params) // begins alike
	if err != nil {
		return nil
	}
	if named := u.named(full); named != full {
		return []byte(named)
	}
	return nil
}

// Serve goes on with a server that has something to say.
func (u *upstream) Serve(r poll.Readiness) {
	if u.session == nil {
		u.drain(r)
		return
	}
	defer u.loop.settle(u.session)
	u.loop.begin()
	if r&poll.Broken != 0 {
		u.fail(errEnded)
		return
	}
	if r&poll.CanWrite != 0 {
		if err := u.outbox.Flush(u.link, u.loop.writeBy()); err != nil {
			u.fail(err)
			return
		}
	}
	if r&poll.CanRead != 0 {
		u.read()
	}
}

func (u *upstream) read() {
	n, err := u.link.Read(u.loop.in[:])
	if n > 0 {
		u.receive(u.loop.in[:n])
	}
	if err != nil && !u.over && u.session != nil {
		u.fail(errEnded)
	}
}

// receive handles the messages that have arrived whole.
func (u *upstream) receive(in []byte) {
	u.heard = u.loop.now
	u.loop.srv.metrics.bytesDown.Add(float64(len(in)))
	if len(u.pending) > 0 {
		u.pending = append(u.pending, in...)
		in = u.pending
	}
	for len(in) > 0 && !u.over && u.session != nil && !u.session.closing {
		n, err := u.message(in)
		if err != nil {
			u.loop.srv.metrics.badServers.WithLabelValues(u.chain.Name).Inc()
			u.fail(err)
			return
		}
		if n == 0 {
			break
		}
		in = in[n:]
	}
	if len(in) == 0 {
		u.pending = nil
		return
	}
	u.pending = append([]byte(nil), in...)
}

// message handles the first message of in and returns its length, 0 if not all of it has come.
func (u *upstream) message(in []byte) (int, error) {
	if in[0] == agentwire.Magic && u.session.Farm {
		_, n, err := agentwire.ParseFrame(in, agentwire.MaxFrame)
		if n > 0 {
			u.pass(in[:n])
		}
		return n, err
	}
	end := bytes.IndexByte(in, '\n')
	switch {
	case end < 0 && len(in) > maxServerLine, end > maxServerLine:
		return 0, errNoStratum
	case end < 0:
		return 0, nil
	}
	line := bytes.Trim(in[:end], "\x00 \t\r")
	if len(line) == 0 {
		return end + 1, nil
	}
	m, err := stratum.ParseMessage(line)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: %w", errNoStratum, err)
	case m.Method != nil:
		u.notified(line, &m)
	case m.ID != nil:
		u.answered(line, &m)
	}
	return end + 1, nil
}

// current reports whether the miner is at this server.
func (u *upstream) current() bool { return u.session.now == u }

// pass has the miner hear something, now or when it comes to this server. One that it was at has nothing to say.
func (u *upstream) pass(b []byte) {
	s := u.session
	switch {
	case u.current():
		s.loop.out = append(s.loop.out, b...)
	case s.next == u && len(u.early)+len(b) > maxEarly:
		u.fail(errTooMuch)
	case s.next == u:
		u.early = append(u.early, b...)
	}
}

// notified takes in what a server says of its own accord.
func (u *upstream) notified(line []byte, m *stratum.Message) {
	s := u.session
	switch string(m.Method) {
	case "mining.notify":
		u.job(m.Params)
		return
	case "mining.set_difficulty":
		u.difficulty = bytes.Clone(m.Params)
		if !u.current() {
			return // the miner hears of it when it comes
		}
		s.Difficulty = u.difficulty
	case "mining.set_version_mask":
		if mask, err := stratum.ParseSetVersionMask(m.Params); err == nil {
			u.mask = mask
			u.server.mask.Store(uint64(mask))
		}
		if u.current() {
			s.tellMask(u)
		}
		return
	case "mining.set_extranonce":
		u.setExtraNonce(m.Params)
		return
	case "client.reconnect":
		u.sentAway()
		return
	}
	u.pass(append(bytes.Clone(line), '\n'))
}

// job gives the miner a job. The first of another server makes those before worthless.
func (u *upstream) job(params []byte) {
	s := u.session
	out := s.loop.up[:0]
	var err error
	if s.Farm {
		out = append(append(append(out, `{"id":null,"method":"mining.notify","params":`...), params...), "}\n"...)
	} else {
		out, err = u.ext.AppendNotify(out, params, !u.working && s.Phase == mining)
	}
	s.loop.up = out[:0]
	if err != nil {
		s.srv.metrics.badServers.WithLabelValues(u.chain.Name).Inc()
		u.fail(fmt.Errorf("%w: %w", errNoStratum, err))
		return
	}
	u.working = true
	u.pass(out)
	if s.next == u && u.authorized {
		s.cutOver()
	}
}

// setExtraNonce takes in another extranonce, which is for the jobs to come.
func (u *upstream) setExtraNonce(params []byte) {
	first, size, err := stratum.ParseSetExtranonce(params)
	if err != nil {
		u.fail(fmt.Errorf("%w: %w", errNoStratum, err))
		return
	}
	u.extraNonce1, u.extraNonce2Size = hex.AppendEncode(nil, first), size
	if u.fit(); u.current() {
		u.session.tellExtraNonce(u)
	}
}

// sentAway has a miner go to another server of the chain: this one does not want it any more, but serves it yet.
func (u *upstream) sentAway() {
	s := u.session
	switch {
	case u.current() && s.next == nil:
		s.avoid = u.server
		s.join()
	case s.next == u:
		u.fail(errEnded)
	}
}

// answered takes in the answer to a request.
func (u *upstream) answered(line []byte, m *stratum.Message) {
	s := u.session
	number, ok := m.Number()
	if !ok {
		return
	}
	switch number {
	case numberConfigure:
		u.configured(m)
	case numberSubscribe:
		first, size, err := stratum.ParseSubscribed(m.Result)
		if err != nil {
			u.fail(fmt.Errorf("mining.subscribe: %w", err))
			return
		}
		u.subscribed = true
		u.ext.Mark = s.nextMark()
		if s.Farm {
			u.ext.Mark = 0
		}
		u.extraNonce1, u.extraNonce2Size = hex.AppendEncode(nil, first), size
		if u.fit(); !u.fits() {
			u.unfit()
		}
	case numberAuthorize, numberSuffixed:
		u.authorizeAnswered(line, m, number == numberSuffixed)
	default:
		if q, ok := u.questions[number]; ok {
			delete(u.questions, number)
			u.answer(q, line, m)
		}
	}
}

// answer gives the miner the answer to its request.
func (u *upstream) answer(q question, line []byte, m *stratum.Message) {
	s := u.session
	_, _, refused := m.Refusal()
	switch q.kind {
	case askedSubmit:
		result := "accepted"
		if refused {
			result = "rejected"
		}
		if !u.current() {
			result = "late " + result
		}
		s.srv.metrics.shares.WithLabelValues(u.chain.Name, result).Inc()
		if !refused {
			s.trust()
		}
	case askedConfigure:
		if mask, granted, err := stratum.ParseConfigured(m.Result, s.Wanted); err == nil && granted {
			u.mask = mask
			s.Told = mask & s.Wanted
		}
	case askedAuthorize:
		if !refused {
			s.remember(q.worker)
		}
	}
	s.loop.out = stratum.AppendAnswerTo(s.loop.out, line, m, q.id)
}

func (u *upstream) configured(m *stratum.Message) {
	s := u.session
	mask, granted, err := stratum.ParseConfigured(m.Result, s.Wanted)
	if err != nil || !granted {
		mask = 0
	}
	u.mask = mask
	if s.Wanted&s.srv.mask == s.srv.mask { // else the miner has asked for less than the server would give
		u.server.mask.Store(uint64(mask))
	}
	if u.current() {
		s.tellMask(u)
	}
}

// authorizeAnswered lets the miner in, or tries the name that its user may have on this chain only.
func (u *upstream) authorizeAnswered(line []byte, m *stratum.Message, suffixed bool) {
	s := u.session
	if s.next != u {
		return
	}
	if _, _, refused := m.Refusal(); refused && !suffixed {
		u.loop.up = stratum.AppendAuthorize(u.loop.up[:0], numberSuffixed, s.Name.suffixed(u.chain.suffix()), s.Password)
		u.send(u.loop.up)
		return
	} else if refused {
		u.refused(line, m)
		return
	}
	if !u.subscribed {
		u.fail(fmt.Errorf("%w: mining.authorize is answered before mining.subscribe", errNoStratum))
		return
	}
	u.suffixed, u.authorized = suffixed, true
	s.srv.metrics.upstreamLogins.WithLabelValues(u.chain.Name, "ok").Inc()
	if u.server.fault() != nil {
		s.srv.told(u.chain, u.server, nil)
	}
	for _, other := range s.Others {
		u.loop.up = stratum.AppendAuthorize(u.loop.up[:0], numberQuiet, u.named(other.Name), other.Password)
		u.send(u.loop.up)
	}
	if s.Phase == joining || u.working {
		s.cutOver()
	}
}

// refused ends a first login with the server's own words. A miner that is to be switched stays where it is.
func (u *upstream) refused(line []byte, m *stratum.Message) {
	s := u.session
	s.srv.metrics.upstreamLogins.WithLabelValues(u.chain.Name, "refused").Inc()
	if s.Phase == joining {
		s.srv.guard.LoginRefused(s.IP, s.loop.now)
		s.srv.metrics.logins.WithLabelValues("refused").Inc()
		s.srv.metrics.refusals.WithLabelValues(refuseByServer.reason).Inc()
		s.loop.out = stratum.AppendAnswerTo(s.loop.out, line, m, s.LoginID)
		s.refused()
		s.finish(errRefused)
		return
	}
	u.fail(errNotAllowed)
}

// settleServers sees to it that the session's servers are heard.
func (s *session) settleServers() {
	for u := range s.servers {
		if u.link != nil && !u.over {
			u.link.Want(true, u.outbox.Len() > 0)
		}
	}
}

// servers yields the session's connections to servers.
func (s *session) servers(yield func(*upstream) bool) {
	for _, u := range [2]*upstream{s.now, s.next} {
		if u != nil && !yield(u) {
			return
		}
	}
	for _, u := range s.past {
		if !yield(u) {
			return
		}
	}
}

// checkServers looks at the deadlines of the session's servers.
func (s *session) checkServers() {
	now := s.loop.now
	for u := range s.servers {
		if u.outbox.Late(now) {
			u.fail(poll.ErrSlow)
			return // the session has others now
		}
		for number, q := range u.questions {
			if now.Sub(q.at) > s.srv.cfg.AnswerTimeout.Std() {
				delete(u.questions, number)
				s.refuse(q.id, refuseSilent)
			}
		}
	}
	if u := s.next; u != nil && u.link != nil && now.Sub(u.began) > s.srv.cfg.UpstreamTimeout.Std()+s.srv.cfg.DialTimeout.Std() {
		s.srv.metrics.upstreamLogins.WithLabelValues(u.chain.Name, "late").Inc()
		u.fail(errLate)
		return
	}
	if u := s.now; u != nil && s.next == nil && s.retryAt.IsZero() && now.Sub(u.heard) > silence && u.server.fault() != nil {
		s.avoid = u.server
		s.join()
	}
}

// drain reads on from a server that nothing more is wanted of, until it has everything.
func (u *upstream) drain(r poll.Readiness) {
	if r&poll.CanWrite != 0 {
		if err := u.outbox.Flush(u.link, u.loop.writeBy()); err != nil {
			u.drop()
			return
		}
	}
	if r&poll.CanRead != 0 {
		if _, err := u.link.Read(u.loop.in[:]); err != nil {
			u.drop()
			return
		}
	}
	if r&poll.Broken != 0 {
		u.drop()
		return
	}
	if u.outbox.Len() == 0 {
		u.link.CloseWrite()
	}
	u.link.Want(true, u.outbox.Len() > 0)
}

const leftGrace = time.Second

// leave lets go of the server, which gets what it was sent.
func (u *upstream) leave() {
	if u.over || u.link == nil {
		u.drop()
		return
	}
	u.session = nil
	u.pending, u.early, u.questions = nil, nil, nil
	u.until = u.loop.now.Add(leftGrace)
	if u.outbox.Len() == 0 && !u.link.CloseWrite() {
		u.drop()
		return
	}
	u.loop.left[u] = struct{}{}
	u.link.Want(true, u.outbox.Len() > 0)
}

// drop closes the connection.
func (u *upstream) drop() {
	if u.over {
		return
	}
	u.over, u.session = true, nil
	u.cancel()
	if u.link != nil {
		u.link.Close()
	}
	delete(u.loop.left, u)
}
