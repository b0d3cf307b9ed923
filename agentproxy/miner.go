package agentproxy

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"btcpool/internal/poll"
	"btcpool/internal/share"
	"btcpool/internal/stratum"
	v1 "btcpool/internal/stratum/v1"
	"btcpool/internal/vardiff"
)

// miner is the connection of a machine. All of it belongs to the loop.
type miner struct {
	svc    *Service
	conn   poll.Link
	ip     netip.Addr
	pos    int // index in svc.miners; negative: it has gone
	state  v1.State
	relay  *relay // not nil: it is another farm proxy
	number uint16

	spoken      bool // the first message has come
	subscribed  bool // number is the miner's
	loggedIn    bool
	software    string
	accountName string
	worker      string
	acct        *account
	goal        *goal     // that it counts for; its link may be of another, which is better than none
	load        float64   // that it counts as
	link        *link     // nil: none is up
	waiting     time.Time // since when there is none

	rolls       bool      // version bits: the miner has asked for that
	misrolled   uint8     // shares in a row with bits that it may not roll
	wantedBits  uint32    // that it could roll
	toldBits    uint32    // that it may roll, as far as it knows
	rolled      int       // shares with version bits
	reconnected time.Time // when the miner was asked to connect again

	difficulty float64        // the pool's, of the next job
	own        *vardiff.State // the machine's own; nil: it has the pool's
	retarget   bool           // own is new
	told       float64        // the one the miner knows
	jobs       []sentJob
	next       uint32    // number of the next job
	heardOf    time.Time // when the miner was told of a job last
	toldAt     []toldDifficulty

	pending []byte
	outbox  poll.Outbox
	readBy  time.Time // deadline of the login, and then of closing
	closing bool
	cut     bool
	silent  bool
	why     error
	junk    int // lines in a row that are no requests

	counts counts
	before *record   // of the time before it connected; nil: none
	linked time.Time // when it came to its link
}

// toldDifficulty is the difficulty of jobs from a number on.
type toldDifficulty struct {
	from       uint32
	difficulty float64
	pool       float64 // the pool's
}

// counts are what a miner has done.
type counts struct {
	since     time.Time
	lastShare time.Time
	accepted  uint64 // by a pool
	easy      uint64 // shares that no pool is sent
	rejected  uint64
	rejects   []rejects
	work      float64 // hashes that all shares stand for
	hashes    meter
}

// rejects are shares with a verdict.
type rejects struct {
	status share.Status
	shares uint64
}

// solution is what a miner found.
type solution struct {
	extraNonce2 uint32
	time        uint32
	nonce       uint32
	versionBits uint32
	rolled      bool
}

var (
	errNoPool     = errors.New("no pool can be reached")
	errFault      = errors.New("a fault of the program")
	errBroken     = errors.New("the connection is broken")
	errSentAway   = errors.New("the pool sends us away")
	errNoLogin    = errors.New("the pool has not let us begin in time: is its port that of miners, and does it have a job?")
	errSilentPool = errors.New("nothing was heard from the pool")
	errOldJob     = errors.New("the pool has no new job")
	errNoVerdict  = errors.New("the pool does not answer to shares")
	errNoNumber   = errors.New("all numbers of miners are in use")
)

const (
	// minersSilence is after what time a miner hears of its job again.
	minersSilence = 50 * time.Second
	// maxLater is by how much its time may differ then, in seconds; pools take ten minutes.
	maxLater = 500
	// maxUnsentMiner is what may wait for a miner, in bytes: dozens of jobs.
	maxUnsentMiner = 64 << 10
	// maxJunk lines in a row end a connection.
	maxJunk = 5
)

func newMiner(s *Service, conn poll.Link, ip netip.Addr) *miner {
	return &miner{svc: s, conn: conn, ip: ip, readBy: time.Now().Add(s.cfg.LoginTimeout.Std())}
}

// failed notes a fault of the program.
func (s *Service) failed(fault any) {
	s.metrics.panics.Inc()
	s.log.Error().Interface("fault", fault).Bytes("stack", debug.Stack()).Msg("connection failed")
}

// Serve goes on with a miner that had to wait for its connection.
func (m *miner) Serve(r poll.Readiness) {
	defer m.settle()
	if r&poll.Broken != 0 {
		m.fail(nil)
		return
	}
	if r&poll.CanWrite != 0 {
		if err := m.outbox.Flush(m.conn, m.writeBy()); err != nil {
			m.fail(err)
			return
		}
	}
	if r&poll.CanRead != 0 {
		m.read()
	}
}

func (m *miner) writeBy() time.Time { return m.svc.now.Add(m.svc.cfg.WriteTimeout.Std()) }

// settle does what follows from what was done with a miner. It is deferred: a fault of the program costs this miner
// only.
func (m *miner) settle() {
	if fault := recover(); fault != nil {
		m.svc.failed(fault)
		m.fail(errFault)
	}
	if m.pos < 0 {
		return
	}
	if m.closing && (m.cut || m.outbox.Len() == 0 && m.conn.Sent()) {
		m.remove()
		return
	}
	m.conn.Want(!m.closing, m.outbox.Len() > 0)
}

// remove forgets a miner that is over.
func (m *miner) remove() {
	s := m.svc
	m.conn.Close()
	last := s.miners[len(s.miners)-1]
	s.miners[m.pos], last.pos = last, m.pos
	s.miners[len(s.miners)-1] = nil
	s.miners = s.miners[:len(s.miners)-1]
	m.pos = -1
	if m.acct != nil {
		s.metrics.miners.Dec()
		m.stopWaiting()
		w := m.info(s.now)
		w.record = &record{m.worked(), m.reconnected}
		s.gone.add(w, s.now)
		if m.silent {
			m.silent = false
			s.silent--
		}
		m.acct.release(m)
	}
	if m.relay != nil {
		m.relay.close()
	}
	if m.subscribed {
		s.numbers.put(m.number)
	}
	if m.why != nil {
		s.metrics.ended.WithLabelValues(reason(m.why)).Inc()
		s.log.Info().Err(m.why).Str("worker", m.worker).Stringer("ip", m.ip).Msg("miner disconnected")
	}
}

// reason is a label for metrics.
func reason(err error) string {
	var conversation *v1.Error
	switch {
	case errors.As(err, &conversation):
		return conversation.Reason()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "no login"
	case errors.Is(err, poll.ErrSlow):
		return "slow"
	case errors.Is(err, errNoPool):
		return "no pool"
	}
	return "other"
}

// finish ends the connection when what is to be sent has been sent.
func (m *miner) finish(why error) {
	if !m.closing {
		m.closing, m.why = true, why
		m.readBy = m.writeBy()
	}
}

// fail ends it now.
func (m *miner) fail(why error) {
	m.finish(why)
	m.cut = true
}

func (m *miner) read() {
	if m.closing {
		return
	}
	s := m.svc
	n, err := m.conn.Read(s.in[:])
	switch {
	case errors.Is(err, poll.ErrSlow):
		m.fail(err)
	case err != nil:
		m.fail(nil)
	case n > 0:
		m.receive(s.in[:n])
	}
}

// receive handles the messages that have arrived and answers them all at once.
func (m *miner) receive(in []byte) {
	if m.relay != nil {
		m.relay.forward(in)
		return
	}
	if len(m.pending) > 0 {
		m.pending = append(m.pending, in...)
		in = m.pending
	}
	if end := bytes.IndexByte(in, '\n'); end >= 0 && !m.spoken {
		if m.spoken = true; isAgent(in[:end]) {
			m.pending = nil
			if m.svc.beginRelay(m); m.relay != nil {
				m.relay.forward(in)
			}
			return
		}
	}
	out := m.svc.out[:0]
	m.svc.out = nil // a share may have others hear something
	for !m.closing {
		var n int
		var err error
		out, n, err = m.conversation().Handle(out, in)
		if err != nil {
			m.finish(err)
		}
		if n == 0 {
			break
		}
		in = in[n:]
	}
	if len(in) == 0 {
		m.pending = nil
	} else {
		m.pending = append([]byte(nil), in...)
	}
	m.svc.out = out[:0]
	m.send(out)
	m.tellDifficulty()
	if m.loggedIn && m.acct == nil && !m.closing { // the answer to the login is out
		m.enter()
	}
}

func (m *miner) conversation() v1.Conn { return v1.Conn{State: &m.state, Session: (*downstream)(m)} }

// send does not wait and does not keep b. A miner that reads too slowly is cut off.
func (m *miner) send(b []byte) {
	if len(b) == 0 || m.cut {
		return
	}
	limit := maxUnsentMiner
	if m.relay != nil {
		limit = maxUnsent
	}
	if err := m.outbox.Send(m.conn, b, limit, m.writeBy()); err != nil {
		m.fail(err)
	}
}

// enter has a miner that has logged in mined for its account.
func (m *miner) enter() {
	s := m.svc
	name := ""
	if s.cfg.MultiUser {
		name = m.accountName
	}
	m.acct = s.account(name)
	before := s.gone.remove(name, m.worker, m.ip.String())
	if m.before = before.record; m.before != nil {
		m.reconnected = m.before.reconnected
	}
	if m.silent = before.Silent; m.silent { // until it works
		s.silent++
	}
	s.metrics.miners.Inc()
	m.counts.since, m.counts.hashes = s.now, newMeter(s.now)
	m.acct.take(m, before.goal)
}

// wait has a miner wait for a link, with the job it has.
func (m *miner) wait() {
	if m.waiting.IsZero() {
		m.waiting = m.svc.now
		m.svc.metrics.waiting.Inc()
	}
}

func (m *miner) stopWaiting() {
	if !m.waiting.IsZero() {
		m.waiting = time.Time{}
		m.svc.metrics.waiting.Dec()
	}
}

// move has a miner mine on another link.
func (m *miner) move(to *link) {
	if m.link != nil {
		m.link.keep(m)
	}
	m.stopWaiting()
	to.take(m)
}

// announce gives a job to the miner, with the difficulty before it if that is new.
func (m *miner) announce(w *work, clean bool) {
	if m.closing {
		return
	}
	s := m.svc
	out := s.out[:0]
	s.out = nil
	m.retarget = false
	t := toldDifficulty{m.next, m.aim(w), m.difficulty}
	if i := len(m.toldAt) - 1; i < 0 || t.difficulty != m.told || t.pool != m.toldAt[i].pool {
		m.toldAt = append(m.toldAt, t)
	}
	if t.difficulty != m.told {
		m.told = t.difficulty
		out = stratum.AppendSetDifficultyOf(out, m.told)
	}
	a := v1.Announcement{Job: &w.job, Number: m.next, First: m.next == 0, Clean: clean}
	if i := len(m.jobs) - 1; i >= 0 && m.jobs[i].work == w {
		a.Later = m.jobs[i].later + 1
		if age := uint32(min(s.now.Sub(w.since).Seconds(), maxLater)); age > a.Later {
			a.Later = age
		}
	}
	if clean {
		m.forget(keptJobs)
	}
	m.remember(w, a.Later)
	m.heardOf = s.now
	out = m.conversation().Announce(out, &a)
	s.out = out[:0]
	m.send(out)
}

// remember notes the next job.
func (m *miner) remember(w *work, later uint32) {
	m.forget(maxSentJobs - 1)
	m.jobs = append(m.jobs, sentJob{w, m.next, later})
	m.next++
}

// forget keeps the last n jobs only, and the difficulties of those.
func (m *miner) forget(n int) {
	m.jobs = slices.Delete(m.jobs, 0, max(0, len(m.jobs)-n))
	oldest := m.next
	if len(m.jobs) > 0 {
		oldest = m.jobs[0].number
	}
	done := 0
	for done+1 < len(m.toldAt) && m.toldAt[done+1].from <= oldest {
		done++
	}
	m.toldAt = slices.Delete(m.toldAt, 0, done)
}

// jobOf returns the job that the miner knows by the low bits of its number.
func (m *miner) jobOf(number uint8) (sentJob, bool) {
	for _, j := range slices.Backward(m.jobs) {
		if uint8(j.number) == number {
			return j, true
		}
	}
	return sentJob{}, false
}

// toldOf returns the difficulties of a job.
func (m *miner) toldOf(j sentJob) toldDifficulty {
	for _, t := range slices.Backward(m.toldAt) {
		if t.from <= j.number {
			return t
		}
	}
	return toldDifficulty{}
}

// check sees to what is due.
func (m *miner) check() {
	s := m.svc
	switch {
	case m.outbox.Late(s.now):
		m.fail(poll.ErrSlow)
	case m.closing && s.now.After(m.readBy):
		m.fail(nil)
	case m.relay != nil:
		if err := m.relay.check(); err != nil {
			m.finish(err)
		}
	case !m.loggedIn && s.now.After(m.readBy):
		m.finish(os.ErrDeadlineExceeded)
	case m.link != nil && s.now.Sub(m.heardOf) >= minersSilence:
		m.announce(m.link.work, false)
	default:
		m.fallSilent()
		if m.adjust(0); !m.retarget {
			return
		}
		m.tellDifficulty()
	}
	m.settle()
}

// judged takes the verdict on a share, and tells the miner if it waits for that.
func (m *miner) judged(q question, status share.Status) {
	m.count(status, q.hashes)
	if q.id != nil {
		m.answer(q.id, status)
	}
}

func (m *miner) answer(id []byte, status share.Status) {
	if m.pos < 0 {
		return
	}
	s := m.svc
	s.metrics.answers.WithLabelValues(status.Label()).Inc()
	out := v1.AppendVerdict(s.out[:0], id, status)
	m.send(out)
	s.out = out[:0]
	m.settle()
}

// countEasy notes a share that no pool is sent.
func (m *miner) countEasy(hashes float64) {
	c := &m.counts
	c.lastShare = m.svc.now
	m.works()
	c.easy++
	c.work += hashes
	c.hashes.add(hashes, m.svc.now)
}

// count notes a verdict.
func (m *miner) count(status share.Status, hashes float64) {
	c := &m.counts
	c.lastShare = m.svc.now
	m.works()
	if status.IsAccepted() {
		c.accepted++
		c.work += hashes
		c.hashes.add(hashes, m.svc.now)
		return
	}
	c.rejected++
	for i := range c.rejects {
		if c.rejects[i].status == status {
			c.rejects[i].shares++
			return
		}
	}
	c.rejects = append(c.rejects, rejects{status, 1})
}
