//go:build integration

package load

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"btcpool/internal/bitcoin"
)

// dialing is how many connections may be on their way to be authorized at a time.
const dialing = 500

// miners are honest: they log in, submit shares that are each tried with a nonce of its own, so that nonces tell shares
// apart, and keep a ledger of what was accepted.
//
// At difficulty 2^-32 practically every nonce is a share: there is nothing to hash then.
type miners struct {
	*loop
	login       order
	conns       []connection
	queue       []int // to be connected
	dialing     int
	nonce       uint32
	accepted    []uint64 // a bit for each nonce
	last        *work
	lastLine    []byte // that said so
	closedLoop  bool
	shares      pacer
	turn        int // who is next at the pace
	hashing     bool
	churn       pacer
	watchedFrom int64
	arrivals    histogram
	answers     histogram // since the last report
	tally
}

// tally is what miners report; the numbers are since the start of the helper.
type tally struct {
	Authorized     int   // at present
	LastAuthorized int64 // when the last became so, by the monotonic clock
	WithJob        int   // at present: authorized ones that have been given a job

	Submitted, Accepted int64
	Unlucky             int64            // refused for their hash: one in 65,536 at difficulty 2^-32
	Stale               int64            // refused because of a new block
	Refused             map[string]int64 // for anything else, by the answer's error
	Disconnects         int64            // that were not our doing
	DialErrors          int64
	Churned             int64
	Waiting             int // shares that have no answer yet
	DifficultyChanges   int64

	P50, P99, Longest time.Duration // of answers since the last report

	Arrived    int   // notifies since the order "watch"
	First      int64 // when, by the monotonic clock
	ArrivedP50 int64
	ArrivedP99 int64
}

type phase uint8

const (
	absent phase = iota
	connecting
	subscribing
	authorizing
	authorized
)

// connection is one miner.
type connection struct {
	fd          int
	phase       phase
	withJob     bool
	in, out     []byte // half a line, and what the socket did not take
	sent        []submitted
	extranonce1 [4]byte
	nonceBytes  int  // size of the extranonce2
	known       bool // extranonce1 is one of an earlier connection
	work        *work
	stale       *work // the last one a share of which was refused as stale
	jobID       []byte
	announced   bitcoin.Difficulty // of the jobs to come
	difficulty  bitcoin.Difficulty // of work

	// When hashing: how many hashes a second this one pretends to do, when the next share is due, and the header it is
	// found for.
	speed  float64
	due    int64
	header [80]byte
	fresh  bool // header belongs to work
}

type submitted struct {
	nonce uint32
	work  *work
	at    int64
}

func newMiners(l *loop) *miners {
	return &miners{loop: l, nonce: firstNonce, tally: tally{Refused: map[string]int64{}}}
}

func (m *miners) obey(o order) (any, error) {
	now := monotonic()
	switch o.Do {
	case "connect":
		m.login = o
		for len(m.conns) < o.Connections {
			m.queue = append(m.queue, len(m.conns))
			m.conns = append(m.conns, connection{fd: -1})
		}
	case "saturate":
		m.closedLoop = true
		for i := range m.conns {
			m.submit(i, now)
		}
	case "pace":
		m.shares.set(o.Rate, now)
	case "hash":
		m.hashing = true
		for i := range m.conns {
			// From a quarter of what gives the wanted pace at the difficulty given to four times as much.
			c := &m.conns[i]
			c.speed = o.Rate / float64(len(m.conns)) * hashes(o.Difficulty) * []float64{.25, .5, 1, 1, 1, 2, 4}[i%7]
			c.schedule(now)
		}
	case "rest":
		m.closedLoop, m.hashing = false, false
		m.shares.set(0, now)
		m.churn.set(0, now)
	case "churn":
		m.churn.set(o.Rate, now)
	case "watch":
		m.watchedFrom, m.arrivals = now, histogram{}
		m.Arrived, m.First = 0, 0
	case "line":
		return m.lastLine, nil
	case "leave":
		m.queue = nil
		for i := range m.conns {
			m.hangUp(i)
		}
		m.conns = nil
	case "ledger":
		ledger := make([]byte, 0, 8*len(m.accepted))
		for _, word := range m.accepted {
			ledger = binary.LittleEndian.AppendUint64(ledger, word)
		}
		if err := os.WriteFile(o.File, ledger, 0o644); err != nil {
			return nil, err
		}
	}
	return m.report(), nil
}

func (m *miners) report() tally {
	t := m.tally
	t.P50, t.P99, t.Longest = m.answers.at(.5), m.answers.at(.99), time.Duration(m.answers.longest)
	m.answers = histogram{}
	for i := range m.conns {
		t.Waiting += len(m.conns[i].sent)
	}
	if m.Arrived > 0 {
		t.ArrivedP50, t.ArrivedP99 = m.watchedFrom+int64(m.arrivals.at(.5)), m.watchedFrom+int64(m.arrivals.at(.99))
	}
	return t
}

func (m *miners) tick(now int64) error {
	for len(m.queue) > 0 && m.dialing < dialing {
		i := m.queue[0]
		m.queue = m.queue[1:]
		if err := m.connect(i); err != nil {
			return err
		}
	}
	for len(m.conns) > 0 && m.shares.due(now) {
		for range m.conns {
			m.turn = (m.turn + 1) % len(m.conns)
			if m.submit(m.turn, now) {
				break
			}
		}
	}
	if m.hashing {
		for i := range m.conns {
			if c := &m.conns[i]; c.due <= now && m.submit(i, now) {
				c.schedule(now)
			}
		}
	}
	for len(m.conns) > 0 && m.churn.due(now) {
		if i := rand.IntN(len(m.conns)); m.conns[i].phase == authorized {
			m.Churned++
			if err := m.part(i); err != nil {
				return err
			}
			m.queue = append(m.queue, i)
		}
	}
	return nil
}

// schedule says when the next share is found: shares come as they do to real miners, by chance.
func (c *connection) schedule(now int64) {
	c.due = now + int64(rand.ExpFloat64()*hashes(c.difficulty)/c.speed*float64(time.Second))
}

func (m *miners) connect(i int) error {
	c := &m.conns[i]
	fd, err := dial(m.login.Network, i%m.login.Sources, m.login.Addr, 0)
	if err != nil {
		return err
	}
	*c = connection{fd: fd, phase: connecting, extranonce1: c.extranonce1, known: c.known, speed: c.speed, due: c.due, difficulty: c.difficulty}
	m.dialing++
	return m.watch(fd, i, unix.EPOLLOUT)
}

// gone ends what is left of a connection that the other side has closed, and dials again.
func (m *miners) gone(i int) {
	if m.conns[i].phase == connecting {
		m.DialErrors++
	} else {
		m.Disconnects++
	}
	m.hangUp(i)
	m.queue = append(m.queue, i)
}

func (m *miners) hangUp(i int) {
	if m.conns[i].phase != absent {
		unix.Close(m.forget(i))
	}
}

// part hangs up when the other side has, too: whatever is still said is read, so that nothing is reset.
func (m *miners) part(i int) error {
	fd := m.forget(i)
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil { // the other side was first
		return unix.Close(fd)
	}
	return m.watch(fd, ^fd, unix.EPOLLIN)
}

// forget returns the connection of a miner that has none any more.
func (m *miners) forget(i int) (fd int) {
	c := &m.conns[i]
	switch c.phase {
	case authorized:
		m.Authorized--
	default:
		m.dialing--
	}
	if c.withJob {
		m.WithJob--
	}
	fd = c.fd
	c.fd, c.phase, c.withJob, c.sent = -1, absent, false, nil
	return fd
}

func (m *miners) ready(i int, events uint32) error {
	if i < 0 { // nobody's any more
		if _, err := m.read(^i); err != nil {
			return unix.Close(^i)
		}
		return nil
	}
	if i >= len(m.conns) || m.conns[i].fd < 0 {
		return nil
	}
	c := &m.conns[i]
	if events&unix.EPOLLOUT != 0 {
		if c.phase == connecting {
			if code, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
				m.gone(i)
				return nil
			}
			c.phase = subscribing
			resume := ""
			if c.known && i%2 == 0 {
				resume = `,"` + hex.EncodeToString(c.extranonce1[:]) + `"`
			}
			m.send(i, fmt.Appendf(nil, `{"id":%d,"method":"mining.subscribe","params":["load/1.0"%s]}`+"\n", subscribeID, resume))
		} else {
			rest := c.out
			c.out = nil
			m.send(i, rest)
		}
		if c.fd >= 0 && len(c.out) == 0 {
			if err := m.watch(c.fd, i, unix.EPOLLIN); err != nil {
				return err
			}
		}
	}
	if c.fd >= 0 && events&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		in, err := m.read(c.fd)
		if err != nil {
			m.gone(i)
			return nil
		}
		return m.take(i, in, monotonic())
	}
	return nil
}

// send writes b, or keeps what the socket does not take until it does.
func (m *miners) send(i int, b []byte) {
	c := &m.conns[i]
	if len(c.out) > 0 {
		c.out = append(c.out, b...)
		return
	}
	n, err := write(c.fd, b)
	if err != nil {
		m.gone(i)
		return
	}
	if n < len(b) {
		c.out = append(c.out, b[n:]...)
		_ = m.watch(c.fd, i, unix.EPOLLIN|unix.EPOLLOUT) // fails only with the connection
	}
}

// take handles the lines that are complete.
func (m *miners) take(i int, in []byte, now int64) error {
	c := &m.conns[i]
	if len(c.in) > 0 {
		in = append(c.in, in...)
	}
	for c.fd >= 0 {
		line, rest, whole := bytes.Cut(in, []byte{'\n'})
		if !whole {
			break
		}
		in = rest
		if err := m.line(i, line, now); err != nil {
			return fmt.Errorf("%w: %s", err, line)
		}
	}
	c.in = append(c.in[:0:0], in...)
	return nil
}
