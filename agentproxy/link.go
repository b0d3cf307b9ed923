package agentproxy

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"btcpool/internal/agentwire"
	"btcpool/internal/poll"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/stratum"
)

// link is a connection to a pool, for the miners of an account. All of it belongs to the loop, but for what newLink
// sets and for the channels.
type link struct {
	acct   *account
	slot   *slot
	target target
	conn   poll.Link
	agent  bool   // the agents' protocol is spoken
	via    string // the proxy, if there is one

	ready chan struct{} // closed when miners can mine on the link
	ended chan struct{} // closed after it has ended
	why   error         // why it has; to be read after that

	pending []byte // input that is not handled yet: the beginning of a message
	outbox  poll.Outbox
	login   login
	began   time.Time
	heard   time.Time // when something came last
	over    bool

	extraNonce1 []byte
	nonceBytes  int    // size of the extranonce2 that the pool leaves to us
	versionBits uint32 // that may be rolled: none, unless the pool grants them
	difficulty  float64
	work        *work
	replaced    bool // others take its miners

	miners map[uint16]*miner
	guests map[uint16]guest // registered here, and on another link

	// A link that has broken may be gone on with by another, which is its heir then, as whoever has its session (late.go).
	sessions bool   // an agents' pool has them
	key      string // by which it ends the session of a link that is over here, and not yet there; "": it does not
	session  string // of plain Stratum V1: what the pool calls it
	before   *link  // whose session this link would go on with
	follower *link  // that would go on with this one's
	heir     *link
	brokeAt  time.Time
	late     []question // shares for whoever goes on

	// What is to be sent waits in batch for more, shares in rows: they are for behind batch. Verdicts are awaited in
	// questions, by the share's index or the number of the request.
	batch     []byte
	rows      []row
	holding   *time.Timer // runs while flushing; nil: it never has
	flushing  bool
	submits   uint32
	blind     int                 // shares of the batch of which nothing will be heard
	batches   bool                // the pool takes shares in batches, and says what it thinks of them
	verdicts  bool                // the pool says what it thinks of a share that comes alone
	workers   map[string]struct{} // those that a pool of plain Stratum V1 was told of
	named     bool                // it has let one of them in
	questions map[uint32]question
	asked     time.Time // when the pool was asked for a sign of life; zero: it has given one since
	pinged    time.Time
	roundTrip time.Duration

	bytesIn, bytesOut int64
}

// login is how far the link has come.
type login struct{ subscribed, authorized bool }

// question is a share whose verdict is awaited.
type question struct {
	miner  *miner
	id     []byte // of the miner's request; nil: it has been answered
	hashes float64
	at     time.Time
	work   *work
	solution
	block bool  // it is a block, too
	tries uint8 // by links that broke before its verdict: it may have reached the pool
}

// Names of the requests that a pool answers.
const (
	idCapabilities = `"caps"`
	idConfigure    = `"conf"`
	idSubscribe    = `"sub"`
	idAuthorize    = `"auth"`
	idAgain        = `"caps_again"`
	idEnd          = `"end"`
	idPing         = `"ping"`
	idWorker       = `"worker"` // of plain Stratum V1: another worker
)

// userAgent is how a pool recognises agents: by what is before the slash.
const userAgent = "btccom-agent/3.0.0-mu"

const (
	// maxPoolLine is the longest line a pool may send.
	maxPoolLine = 64 << 10
	// maxUnsent is what may wait for a pool, in bytes: all miners there can be are registered at once, each with at most
	// 100 bytes. A plain pool's workers take somewhat more each.
	maxUnsent = 8 << 20
	// silence is after what time a pool is asked for a sign of life.
	silence = 20 * time.Second
	// maxJobAge is after what time without a job a link is of no use.
	maxJobAge = 5 * time.Minute
	// verdictPatience is how long a verdict may take: a pool that has lost one may have lost count.
	verdictPatience = 30 * time.Second
)

// newLink takes over up.
func newLink(sl *slot, t target, up upstream, writeTimeout time.Duration) (*link, error) {
	acct := sl.goal.acct
	conn, err := poll.Adopt(up.Conn, acct.svc.goroutines.Go, writeTimeout)
	if err != nil {
		return nil, err
	}
	l := bareLink()
	l.acct, l.slot, l.target, l.conn, l.agent, l.via = acct, sl, t, conn, up.agent, up.via
	return l, nil
}

func bareLink() *link {
	return &link{
		ready:     make(chan struct{}),
		ended:     make(chan struct{}),
		miners:    make(map[uint16]*miner),
		guests:    make(map[uint16]guest),
		questions: make(map[uint32]question),
	}
}

func (l *link) addr() string { return l.target.Addr }

// rank is the place of the link's pool in the order of preference.
func (l *link) rank() int { return l.slot.goal.plan.Load().rank(l.target) }

// accountName is whom the link mines for.
func (l *link) accountName() string {
	if l.acct.name != "" {
		return l.acct.name
	}
	return l.target.Account
}

// up reports whether miners can mine on the link.
func (l *link) up() bool {
	return !l.over && l.login.authorized && l.login.subscribed && l.difficulty > 0 && l.work != nil
}

// begin logs in, with BTCAgent's words, so that pools recognise an agent.
func (l *link) begin() {
	s := l.acct.svc
	l.began, l.heard = s.now, s.now
	l.acct.links[l] = struct{}{}
	if err := l.conn.Attach(s.loop, l); err != nil {
		l.close(err)
		return
	}
	if l.slot.ended { // meanwhile
		l.close(nil)
		return
	}
	agent := "agentproxy/" + service.Version()
	if l.agent {
		agent = userAgent
		l.ask(idCapabilities, "agent.get_capabilities", l.wishes())
	}
	l.ask(idConfigure, "mining.configure", `["version-rolling"],{"version-rolling.mask":"ffffffff","version-rolling.min-bit-count":0}`)
	session := ""
	if l.before = l.acct.predecessor(l); l.before != nil {
		session = "," + quote(l.before.sessionID())
		if l.before.key != "" { // it may hang
			l.ask(idEnd, "agent.end_session", quote(l.before.sessionID())+","+quote(l.before.key))
		}
		l.named = l.before.named
	}
	l.ask(idSubscribe, "mining.subscribe", quote(agent)+session)
	l.ask(idAuthorize, "mining.authorize", quote(l.accountName())+`,""`)
}

// wishes are the capabilities that are asked for.
func (l *link) wishes() string {
	words := []string{stratum.VersionRollingFrames}
	if !l.target.NoExtensions {
		words = append(words, stratum.SmallDifficulties, stratum.Batches, stratum.Sessions)
	}
	if l.target.verdicts {
		words = append(words, stratum.SubmitResponses)
	}
	return `["` + strings.Join(words, `","`) + `"]`
}

func quote(text string) string { return `"` + string(stratum.Escape(text)) + `"` }

// ask sends a request; params are JSON text without the brackets.
func (l *link) ask(id, method, params string) {
	l.send([]byte(`{"id":` + id + `,"method":"` + method + `","params":[` + params + "]}\n"))
}

// send does not wait and does not keep b.
func (l *link) send(b []byte) {
	if l.over {
		return
	}
	s := l.acct.svc
	l.bytesOut += int64(len(b))
	s.metrics.bytes.WithLabelValues("out").Add(float64(len(b)))
	if err := l.outbox.Send(l.conn, b, maxUnsent, s.now.Add(s.cfg.ReadTimeout.Std())); err != nil {
		l.close(err)
		return
	}
	l.conn.Want(true, l.outbox.Len() > 0)
}

// Serve goes on with a link that had to wait.
func (l *link) Serve(r poll.Readiness) {
	defer func() {
		if fault := recover(); fault != nil {
			l.acct.svc.failed(fault)
			l.close(errFault)
		}
	}()
	if r&poll.Broken != 0 {
		l.close(errBroken)
		return
	}
	if r&poll.CanWrite != 0 {
		if err := l.outbox.Flush(l.conn, l.acct.svc.now.Add(l.acct.svc.cfg.ReadTimeout.Std())); err != nil {
			l.close(err)
			return
		}
	}
	if r&poll.CanRead != 0 {
		l.read()
	}
	if !l.over {
		l.conn.Want(true, l.outbox.Len() > 0)
	}
}

func (l *link) read() {
	s := l.acct.svc
	n, err := l.conn.Read(s.in[:])
	if n > 0 {
		l.heard, l.asked = s.now, time.Time{}
		l.bytesIn += int64(n)
		s.metrics.bytes.WithLabelValues("in").Add(float64(n))
		in := append(l.pending, s.in[:n]...)
		for used := 1; used > 0 && err == nil && !l.over; in = in[used:] {
			used, err = l.message(in)
		}
		l.pending = append(l.pending[:0:0], in...)
	}
	if err != nil {
		l.close(err)
	}
}

// message handles the first message of in and returns its length, 0 when it has not arrived completely.
func (l *link) message(in []byte) (n int, err error) {
	if len(in) > 0 && in[0] == agentwire.Magic {
		f, n, err := agentwire.ParseFrame(in, agentwire.MaxFrame)
		if err == nil && n > 0 {
			l.frame(f)
		}
		return n, err
	}
	end := bytes.IndexByte(in, '\n')
	switch {
	case end >= 0:
		return end + 1, l.line(bytes.TrimSuffix(in[:end], []byte("\r")))
	case len(in) > maxPoolLine:
		return 0, fmt.Errorf("a line of more than %d bytes", maxPoolLine)
	}
	return 0, nil
}

// frame handles a frame of the pool. One that is not what it should be is passed over.
func (l *link) frame(f agentwire.Frame) {
	switch f.Command {
	case agentwire.CmdSetDifficulty:
		d, err := agentwire.ParseSetDifficulty(f)
		if err != nil {
			return
		}
		for _, number := range d.Sessions {
			if m := l.miners[uint16(number)]; m != nil {
				m.difficulty = d.Difficulty.Float()
			} else if g, ok := l.guests[uint16(number)]; ok {
				g.difficulty = d.Difficulty.Float()
				l.guests[uint16(number)] = g
			}
		}
	case agentwire.CmdSubmitResponse:
		if r, err := agentwire.ParseSubmitResponse(f); err == nil {
			l.verdict(uint32(r.Index), r.Status)
		}
	case agentwire.CmdVerdicts:
		if v, err := agentwire.ParseVerdicts(f); err == nil {
			for i, status := range v.Statuses {
				l.verdict(uint32(v.First+uint16(i)), status)
			}
		}
	}
}

func (l *link) line(line []byte) error {
	if len(line) == 0 {
		return nil
	}
	m, err := stratum.ParseMessage(line)
	if err != nil {
		return fmt.Errorf("a line of the pool: %w", err)
	}
	switch string(m.Method) {
	case "":
		return l.answer(m)
	case "mining.notify":
		return l.notify(m.Params)
	case "mining.set_difficulty":
		return l.setDifficulty(m.Params)
	case "mining.set_version_mask":
		if mask, err := stratum.ParseSetVersionMask(m.Params); err == nil {
			l.setVersionBits(mask)
		}
	case "mining.set_extranonce":
		first, size, err := stratum.ParseSetExtranonce(m.Params)
		if err != nil {
			return err
		}
		return l.setExtraNonce(first, size)
	case "client.reconnect":
		return errSentAway
	case "client.show_message":
		if text, ok := stratum.ParseShowMessage(m.Params); ok {
			l.slot.log.Info().Str("pool", l.addr()).Str("text", text[:min(len(text), maxShown)]).Msg("the pool says")
		}
	case "client.get_version":
		l.send(stratum.AppendVersion(nil, m.ID, userAgent))
	}
	return nil
}

// maxShown is how much is shown of a text of a pool, in bytes.
const maxShown = 200

// answer takes the answer to a request of ours; others are passed over.
func (l *link) answer(m stratum.Message) error {
	switch string(m.ID) {
	case idCapabilities, idAgain:
		l.capabilities(m)
	case idConfigure:
		mask, granted, err := stratum.ParseConfigured(m.Result, math.MaxUint32)
		if m.Error != nil || err != nil || !granted {
			mask = 0
		}
		l.setVersionBits(mask)
	case idSubscribe:
		if m.Error != nil {
			_, text, _ := m.Refusal()
			return fmt.Errorf("the pool refuses to subscribe: %.200s", text)
		}
		first, size, err := stratum.ParseSubscribed(m.Result)
		if err != nil {
			return err
		}
		l.login.subscribed = true
		if !l.agent {
			l.session = stratum.ParseSession(m.Result)
		}
		if b := l.before; b != nil && (!bytes.Equal(first, b.extraNonce1) || size != b.nonceBytes) {
			l.before = nil // the pool has forgotten it
			l.acct.giveUp(b)
		}
		return l.setExtraNonce(first, size)
	case idAuthorize:
		if code, text, refused := m.Refusal(); refused {
			return fmt.Errorf("the pool refuses account %q: %d %.200s", l.accountName(), code, text)
		}
		l.login.authorized = true
		if l.agent { // what was asked before the login may have been forgotten
			l.ask(idAgain, "agent.get_capabilities", l.wishes())
		}
		l.tellUp()
	case idWorker:
		if code, text, refused := m.Refusal(); refused {
			l.slot.log.Warn().Str("pool", l.addr()).Int("code", code).Str("text", text[:min(len(text), maxShown)]).
				Msg("the pool refuses a worker")
		} else {
			l.named = true
		}
	case idPing:
		l.roundTrip = l.acct.svc.now.Sub(l.pinged)
	default:
		if number, ok := m.Number(); ok && !l.agent {
			status := share.StatusAccept
			if code, _, refused := m.Refusal(); refused {
				status = share.Status(code).Known()
			}
			l.verdict(uint32(number), status)
		}
	}
	return nil
}

func (l *link) capabilities(m stratum.Message) {
	has := func(word string) bool { return strings.Contains(string(m.Result), `"`+word+`"`) }
	if !has(stratum.VersionRollingFrames) {
		l.setVersionBits(0)
	}
	l.verdicts = has(stratum.SubmitResponses) && l.target.verdicts
	l.batches = has(stratum.Batches)
	l.sessions = has(stratum.Sessions)
	l.key = stratum.ParseSessionKey(m.Result)
}

// sessionID is by what name another link may go on with this one's session; "": it cannot.
func (l *link) sessionID() string {
	if l.agent && l.sessions {
		return hex.EncodeToString(l.extraNonce1)
	}
	return l.session
}

// setVersionBits takes what the pool says, which it may say again.
func (l *link) setVersionBits(mask uint32) {
	l.versionBits = mask
	if !l.up() {
		return
	}
	l.acct.svc.learnMask(l.addr(), mask)
	for _, m := range l.miners {
		m.tellVersionBits()
		m.settle()
	}
}

func (l *link) setExtraNonce(first []byte, size int) error {
	switch {
	case l.agent && (len(first) != 4 || size != agentwire.PoolExtraNonce2Size):
		return fmt.Errorf("extranonces of %d and %d bytes: agents need 4 and %d, the pool's extra_nonce2_size must be %[3]d",
			len(first), size, agentwire.PoolExtraNonce2Size)
	case size < agentwire.PoolExtraNonce2Size:
		return fmt.Errorf("the pool leaves %d bytes of extranonce2 to us, too few to divide them among miners: %d are needed",
			size, agentwire.PoolExtraNonce2Size)
	}
	l.extraNonce1, l.nonceBytes = first, size
	return nil
}

// setDifficulty takes the difficulty of miners that come. An agent's pool says it once; later it speaks of the link
// itself, which has no shares. Of plain Stratum V1 it is for all miners, from the next job on.
func (l *link) setDifficulty(params []byte) error {
	d, err := stratum.ParseSetDifficulty(params)
	if err != nil || l.agent && l.difficulty > 0 {
		return err
	}
	l.difficulty = d
	for _, m := range l.miners {
		m.difficulty = d
	}
	l.tellUp()
	return nil
}

func (l *link) notify(params []byte) error {
	if !l.login.subscribed {
		return errors.New("a job before the answer to mining.subscribe")
	}
	s := l.acct.svc
	var j stratum.Job
	if err := j.Parse(params); err != nil {
		return fmt.Errorf("mining.notify: %w", err)
	}
	number, err := strconv.ParseUint(string(j.ID), 10, 8)
	if l.agent && err != nil {
		return fmt.Errorf("job id %q: an agent's are 0 to 255", j.ID)
	}
	first := l.work == nil
	whole := minersJob(&j, l.extraNonce1, l.nonceBytes)
	if err := l.target.checkPayout(whole); err != nil {
		s.metrics.refusedJobs.Inc()
		s.shunned.add(l.target, err, s.now)
		return err
	}
	l.work = newWork(l, whole, s.now)
	l.work.id, l.work.number = j.ID, uint8(number)
	l.acct.last = whole
	s.metrics.jobs.WithLabelValues("pool").Inc()
	if first {
		l.tellUp()
	} else {
		l.announce(j.Clean)
	}
	return nil
}

// announce gives the link's job to all its miners. Shares that wait are for the pool first: they are of the job before.
func (l *link) announce(clean bool) {
	l.flush()
	for _, m := range l.miners {
		m.announce(l.work, clean)
		m.settle()
	}
}

// tellUp has miners mine on the link as soon as that is possible.
func (l *link) tellUp() {
	select {
	case <-l.ready:
		return
	default:
	}
	if !l.up() {
		return
	}
	close(l.ready)
	s := l.acct.svc
	s.learnMask(l.addr(), l.versionBits)
	s.metrics.dials.WithLabelValues("up").Inc()
	s.metrics.links.WithLabelValues(l.addr(), l.protocol()).Inc()
	l.slot.log.Info().Str("pool", l.addr()).Str("protocol", l.protocol()).Str("proxy", l.via).
		Str("version_mask", fmt.Sprintf("%08x", l.versionBits)).Float64("difficulty", l.difficulty).Msg("link up")
	if !l.agent {
		l.slot.log.Warn().Str("pool", l.addr()).Msg("the pool does not speak the agents' protocol: it is used as any Stratum V1 " +
			"server, all machines have one difficulty and every share takes some 100 bytes")
	}
	l.acct.linkUp(l)
	l.goOn()
}

func (l *link) protocol() string {
	if l.agent {
		return string(ProtocolAgent)
	}
	return string(ProtocolStratum)
}

// take registers a miner and gives it the job.
func (l *link) take(m *miner) {
	m.link = l
	l.miners[m.number] = m
	m.linked = l.acct.svc.now
	m.difficulty = l.difficulty
	if g, known := l.guests[m.number]; known {
		m.difficulty = g.difficulty
		delete(l.guests, m.number)
	} else {
		l.introduce(m)
	}
	if m.link == l { // it has not ended by that
		m.tellVersionBits()
		m.announce(l.work, true)
	}
}

// release unregisters a miner that has gone, behind the last of its shares.
func (l *link) release(m *miner) {
	_, known := l.guests[m.number]
	if m.link == l {
		known = true
		delete(l.miners, m.number)
		m.link = nil
	}
	if delete(l.guests, m.number); known {
		l.unregister(m.number)
	}
}

// submit sends a share. Nothing will be heard of one that is not awaited.
func (l *link) submit(q question) (awaited bool) {
	w := q.work
	if !l.agent {
		l.submitText(l.expect(q), q)
		return true
	}
	at := q.time
	if at == w.time {
		at = 0
	}
	frame := agentwire.Submit{
		JobID:       w.number,
		Session:     agentwire.Session(q.miner.number),
		ExtraNonce2: q.extraNonce2,
		Nonce:       q.nonce,
		Time:        at,
		VersionBits: q.versionBits,
		Rolled:      q.rolled,
	}
	awaited = true
	if l.batches && frame.Fits() {
		l.rows = append(l.rows, row{frame, q})
	} else {
		l.pack()
		l.batch = frame.AppendTo(l.batch)
		if l.verdicts {
			l.expect(q)
		} else {
			l.submits++
			l.blind++
			awaited = false
		}
	}
	if q.block {
		l.flush()
	} else {
		l.flushSoon()
	}
	return awaited
}

// expect awaits the verdict on the next share, whose index or request's number it returns.
func (l *link) expect(q question) uint32 {
	index := l.submits
	l.submits++
	if l.agent {
		index = uint32(uint16(index))
	}
	if old, ok := l.questions[index]; ok { // 2^16 shares ago
		l.unanswered(old, "no verdict")
	}
	l.questions[index] = q
	return index
}

// verdict takes what the pool thinks of a share.
func (l *link) verdict(index uint32, status share.Status) {
	s := l.acct.svc
	q, ok := l.questions[index]
	if !ok {
		s.metrics.stray.Inc()
		return
	}
	delete(l.questions, index)
	if q.tries > 0 && status == share.StatusDuplicate { // it was counted then
		status = share.StatusAccept
	}
	s.metrics.verdicts.WithLabelValues(status.Label()).Inc()
	s.metrics.verdictIn.Observe(s.now.Sub(q.at).Seconds())
	l.roundTrip = s.now.Sub(q.at)
	q.miner.judged(q, status)
}

// unanswered tells a miner that nobody knows what became of its share.
func (l *link) unanswered(q question, reason string) {
	l.acct.svc.metrics.lost.WithLabelValues(reason).Inc()
	q.miner.judged(q, share.StatusUnknown)
}

// tick sees to what is due.
func (l *link) tick() {
	s := l.acct.svc
	quiet := s.now.Sub(l.heard)
	switch {
	case !l.up() && s.now.Sub(l.began) > s.cfg.DialTimeout.Std():
		l.close(errNoLogin)
	case quiet > l.longestSilence() || l.outbox.Late(s.now):
		l.close(errSilentPool)
	case l.up() && s.now.Sub(l.work.since) > maxJobAge:
		l.close(errOldJob)
	case l.replaced && len(l.miners)+len(l.guests) == 0 && (len(l.questions) == 0 || s.now.Sub(l.heard) > verdictPatience):
		l.close(nil)
	case quiet > min(silence, s.cfg.ReadTimeout.Std()/2) && l.asked.IsZero() && l.agent:
		l.asked, l.pinged = s.now, s.now
		l.ask(idPing, "agent.get_capabilities", l.wishes())
	}
	l.sweepGuests()
	for _, q := range l.questions {
		if s.now.Sub(q.at) > verdictPatience {
			l.close(errNoVerdict)
			break
		}
	}
}

// longestSilence is after what time without a word the link is over. A plain pool cannot be asked for a sign of life: all
// that it has to say is jobs.
func (l *link) longestSilence() time.Duration {
	timeout := l.acct.svc.cfg.ReadTimeout.Std()
	if l.agent {
		return timeout
	}
	return max(timeout, maxJobAge)
}

// replace has other links of the account take the miners, as soon as one is up; their last shares, and verdicts, still
// come.
func (l *link) replace() {
	if l.over {
		return
	}
	l.replaced = true
	for _, m := range slices.Collect(maps.Values(l.miners)) {
		if other := l.acct.best(m.goal); other != nil {
			m.move(other)
			m.settle()
		}
	}
}

// close ends the link; why is nil when that was meant.
func (l *link) close(why error) {
	if l.over {
		return
	}
	wasUp := l.up()
	l.over, l.why = true, why
	l.conn.Close()
	s := l.acct.svc
	if wasUp {
		s.metrics.links.WithLabelValues(l.addr(), l.protocol()).Dec()
	}
	if wasUp && why != nil {
		s.metrics.linksLost.WithLabelValues(l.addr()).Inc()
		l.slot.log.Warn().Err(why).Str("pool", l.addr()).Int("miners", len(l.miners)).
			Int("unanswered", len(l.questions)).Msg("link lost")
	}
	if l.before != nil { // another may try that
		l.before.follower = nil
	}
	s.metrics.lost.WithLabelValues("link lost").Add(float64(l.blind))
	awaited := l.takeQuestions()
	if wasUp && why != nil && !l.replaced && l.sessionID() != "" && s.accounts[l.acct.name] == l.acct && s.shunned.err(l.target, s.now) == nil {
		l.acct.breaks(l, awaited)
	} else {
		for _, q := range awaited {
			l.unanswered(q, "link lost")
		}
	}
	l.acct.linkDown(l, why)
	close(l.ended)
}

// takeQuestions returns all shares without a verdict, in the order in which they came.
func (l *link) takeQuestions() []question {
	var all []question
	for _, q := range l.questions {
		q.tries++
		all = append(all, q)
	}
	for _, r := range l.rows {
		all = append(all, r.question)
	}
	clear(l.questions)
	l.rows = nil
	slices.SortStableFunc(all, func(a, b question) int { return a.at.Compare(b.at) })
	return all
}
