package miner

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/time/rate"

	"btcpool/internal/stratum"
)

// maxPending bounds the requests a pool may leave unanswered on one connection before it gets no more shares.
const maxPending = 256

const (
	defaultTimeout = 30 * time.Second
	defaultIdle    = 10 * time.Minute
	writeTimeout   = 10 * time.Second
)

// Why Submit may refuse a share.
var (
	ErrEnded = errors.New("session has not begun or has ended")
	ErrBusy  = fmt.Errorf("pool leaves %d requests unanswered", maxPending)
)

// RedirectError ends a session whose pool sent client.reconnect.
type RedirectError struct {
	Addr string
	Wait time.Duration
}

func (e *RedirectError) Error() string {
	return fmt.Sprintf("pool asks to reconnect to %s after %s", e.Addr, e.Wait)
}

// Step is a stage of a session's start.
type Step int

// The steps in their order.
const (
	Connect Step = iota
	Subscribe
	Authorize // from here on shares can be submitted
	steps
)

// Outcome is what a pool said to a share.
type Outcome int

// A share is Accepted by the result true alone. Unanswered is the outcome of those left over when the connection ends.
const (
	Unanswered Outcome = iota
	Accepted
	Rejected
)

// Result is what became of a share.
type Result struct {
	Share
	User    string
	Outcome Outcome
	Code    int    // why a share was rejected, as the pool numbers it
	Text    string // why a share was rejected, at most 200 bytes
	At      time.Time
	Latency time.Duration // from the submission to the answer
}

// ClientConfig says where and how to mine. The functions may be nil; they are called on the goroutine of Run and must
// not block.
type ClientConfig struct {
	Addr           string      // host:port
	TLS            *tls.Config // nil: none
	User, Password string
	Agent          string
	VersionMask    uint32        // offered by mining.configure; 0: version rolling is not asked for
	AnyHost        bool          // client.reconnect may name another host
	Timeout        time.Duration // for the connection and each answer of the handshake; 0: 30 s
	Idle           time.Duration // silence after which the connection counts as dead; 0: 10 min

	OnStep   func(step Step, took time.Duration)
	OnJob    func(job *Job, at time.Time) // at: when its line was read
	OnResult func(Result)                 // every submitted share ends here, once
	OnBytes  func(in, out int)
}

// Client is one Stratum V1 connection of a miner, from dialling to its end. It follows the protocol as the pools speak
// it (subscribe, authorize, BIP 310 configure, notify, submit) and depends on nothing that only one pool does.
//
// Run is called once. Job and Submit may be called from any goroutine at any time.
type Client struct {
	cfg     ClientConfig
	worker  []byte // the user as mining.submit names it
	log     zerolog.Logger
	job     atomic.Pointer[Job] // nil until authorized and notified, and after the end
	counter atomic.Uint64       // of header variations handed out, see Job.variation

	// A write may block until the pool reads, so answers must be taken without its lock. Order: writing, then mu.
	writing sync.Mutex // guards out and the order of lines
	out     []byte
	mu      sync.Mutex // guards what follows
	conn    net.Conn   // nil until connected
	nextID  uint64
	pending map[uint64]pending // nil after the end
	garbled []uint64           // pending requests whose id the pool cannot read, oldest first
	broken  error              // the first write that failed, nil while none has

	// Used by Run alone.
	session    Job // values for the next job
	authorized bool
	messages   rate.Sometimes
}

type pending struct {
	kind  requestKind
	at    time.Time
	share Share // the one that was submitted
}

type requestKind int

const (
	configure requestKind = iota
	subscribe
	authorize
	submit
)

// NewClient prepares a session; Run starts it.
func NewClient(cfg ClientConfig, log zerolog.Logger) *Client {
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultTimeout)
	cfg.Idle = cmp.Or(cfg.Idle, defaultIdle)
	return &Client{
		cfg:      cfg,
		worker:   stratum.Escape(cfg.User),
		log:      log,
		pending:  make(map[uint64]pending),
		session:  Job{Difficulty: 1, Target: TargetOf(1)},
		messages: rate.Sometimes{First: 3, Interval: time.Minute},
	}
}

// Job returns the work to do now, nil when there is none.
func (c *Client) Job() *Job { return c.job.Load() }

// Busy reports whether Submit would return ErrBusy.
func (c *Client) Busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending) >= maxPending
}

// Run connects, subscribes, authorizes and serves the session until it ends. The error says why; it is nil when ctx
// ended, and a *RedirectError when the pool asked for a new connection.
func (c *Client) Run(ctx context.Context) error {
	start := time.Now()
	conn, err := c.dial(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer c.end()
	defer conn.Close()
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	c.step(Connect, time.Since(start))

	err = c.serve(conn)
	if ctx.Err() != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return cmp.Or(c.broken, err)
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	if c.cfg.TLS == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", c.cfg.Addr)
	}
	return (&tls.Dialer{Config: c.cfg.TLS}).DialContext(ctx, "tcp", c.cfg.Addr)
}

func (c *Client) serve(conn net.Conn) error {
	if c.cfg.VersionMask != 0 {
		// Not waited for: pools that do not know mining.configure may keep silent. BIP 310 wants it before mining.subscribe.
		asked := stratum.Configure{Extensions: []string{stratum.VersionRolling}, VersionMask: c.cfg.VersionMask, MinBitCount: 2}
		if err := c.send(pending{kind: configure}, func(dst []byte, id uint64) []byte {
			return stratum.AppendConfigure(dst, id, asked)
		}); err != nil {
			return err
		}
	}
	if err := c.send(pending{kind: subscribe}, func(dst []byte, id uint64) []byte {
		return stratum.AppendSubscribe(dst, id, c.cfg.Agent, "")
	}); err != nil {
		return err
	}
	lines := newLines(conn)
	c.expect(time.Now().Add(c.cfg.Timeout))
	for lines.Scan() {
		line, now := lines.Bytes(), time.Now()
		if c.cfg.OnBytes != nil {
			c.cfg.OnBytes(len(line)+1, 0)
		}
		m, err := stratum.ParseMessage(line)
		if err != nil {
			return fmt.Errorf("line from pool %q: %w", cut(string(line)), err)
		}
		if len(m.Method) > 0 {
			err = c.obey(&m, now)
		} else {
			err = c.answered(&m, now)
		}
		if err != nil {
			return err
		}
		// Until authorized the deadline is that of the answer waited for, whatever else the pool sends.
		if c.authorized {
			c.expect(now.Add(c.cfg.Idle))
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("line longer than %d bytes from pool", maxLine)
	case err != nil:
		return fmt.Errorf("read from pool: %w", err)
	}
	return errors.New("closed by the pool")
}

// expect is when a line must have come. Setting a deadline fails on a closed connection only, which the next read will say.
func (c *Client) expect(by time.Time) { _ = c.conn.SetReadDeadline(by) }

// obey does what a request or notification of the pool asks for.
func (c *Client) obey(m *stratum.Message, now time.Time) error {
	var err error
	switch string(m.Method) {
	case "mining.notify":
		job := new(stratum.Job)
		if err = job.Parse(m.Params); err == nil {
			c.session.Job = job
			c.publish(now)
		}
	case "mining.set_difficulty":
		var d float64
		if d, err = stratum.ParseSetDifficulty(m.Params); err == nil && d != c.session.Difficulty {
			c.session.Difficulty, c.session.Target = d, TargetOf(d)
		}
	case "mining.set_extranonce":
		var extranonce1 []byte
		var size int
		if extranonce1, size, err = stratum.ParseSetExtranonce(m.Params); err == nil {
			c.session.Extranonce1, c.session.Extranonce2Size = extranonce1, size
		}
	case "mining.set_version_mask":
		var mask uint32
		if mask, err = stratum.ParseSetVersionMask(m.Params); err == nil {
			c.setMask(mask)
		}
	case "client.reconnect":
		err = c.redirected(m.Params)
		if redirect := (*RedirectError)(nil); errors.As(err, &redirect) {
			return err
		}
	case "client.show_message":
		if text, ok := stratum.ParseShowMessage(m.Params); ok {
			c.messages.Do(func() { c.log.Info().Str("text", cut(text)).Msg("message from pool") })
		}
	case "client.get_version":
		c.reply(func(dst []byte) []byte { return stratum.AppendVersion(dst, m.ID, c.cfg.Agent) })
	case "mining.ping", "client.ping":
		c.reply(func(dst []byte) []byte { return stratum.AppendResult(dst, m.ID, `"pong"`) })
	default:
		if m.ID != nil {
			c.reply(func(dst []byte) []byte { return stratum.AppendAnswer(dst, m.ID, "null", `[20,"Unknown method",null]`) })
		}
	}
	if err != nil {
		return fmt.Errorf("%s from pool: %w", cut(string(m.Method)), err)
	}
	return nil
}

// redirected returns a *RedirectError unless the pool names a host that may not be followed.
func (c *Client) redirected(params []byte) error {
	host, port, wait, err := stratum.ParseReconnect(params)
	if err != nil {
		return err
	}
	ownHost, ownPort, err := net.SplitHostPort(c.cfg.Addr)
	if err != nil {
		return err
	}
	if host == "" {
		host = ownHost
	}
	if port != 0 {
		ownPort = strconv.Itoa(int(port))
	}
	if host != ownHost && !c.cfg.AnyHost {
		c.messages.Do(func() { c.log.Warn().Str("host", cut(host)).Msg("reconnect to another host refused") })
		return nil
	}
	const maxWait = 60 // seconds
	return &RedirectError{Addr: net.JoinHostPort(host, ownPort), Wait: time.Duration(min(wait, maxWait) * float64(time.Second))}
}

// setMask takes a new version mask. BIP 310 makes it valid at once, for the present job too.
func (c *Client) setMask(mask uint32) {
	c.session.VersionMask = mask & c.cfg.VersionMask
	if job := c.job.Load(); job != nil {
		changed := *job
		changed.VersionMask = c.session.VersionMask
		c.job.Store(&changed)
	}
}

// publish makes the session's values the present job, once there are all of them.
func (c *Client) publish(now time.Time) {
	if !c.authorized || c.session.Job == nil {
		return
	}
	job := c.session
	c.job.Store(&job)
	if c.cfg.OnJob != nil {
		c.cfg.OnJob(&job, now)
	}
}

// answered handles the pool's answer to a request of ours.
func (c *Client) answered(m *stratum.Message, now time.Time) error {
	p, ok := c.take(m)
	if !ok {
		return nil // an answer to nothing: late, doubled or invented
	}
	code, text, refused := m.Refusal()
	text = cut(text)
	switch p.kind {
	case configure:
		mask, granted, err := stratum.ParseConfigured(m.Result, c.cfg.VersionMask)
		if err != nil {
			return fmt.Errorf("mining.configure: %w", err)
		}
		if granted {
			c.setMask(mask)
		}
		return nil
	case subscribe:
		extranonce1, size, err := stratum.ParseSubscribed(m.Result)
		if err != nil {
			return fmt.Errorf("mining.subscribe: %w: %s", err, text)
		}
		c.session.Extranonce1, c.session.Extranonce2Size = extranonce1, size
		// A pool may give a new session the extranonce1 of one before: starting anywhere avoids its shares.
		c.counter.Store(rand.Uint64N(1 << (8 * min(size, 7)))) //nolint:gosec // where a search begins
		c.step(Subscribe, now.Sub(p.at))
		c.expect(now.Add(c.cfg.Timeout))
		return c.send(pending{kind: authorize}, func(dst []byte, id uint64) []byte {
			return stratum.AppendAuthorize(dst, id, c.cfg.User, c.cfg.Password)
		})
	case authorize:
		if refused {
			return fmt.Errorf("mining.authorize refused: %d %s", code, text)
		}
		c.authorized = true
		c.step(Authorize, now.Sub(p.at))
		c.publish(now)
		return nil
	default:
		result := Result{Share: p.share, User: c.cfg.User, Outcome: Accepted, At: now, Latency: now.Sub(p.at)}
		if refused {
			result.Outcome, result.Code, result.Text = Rejected, code, text
		}
		c.result(result)
		return nil
	}
}

// take finds the request an answer belongs to and forgets it.
func (c *Client) take(m *stratum.Message) (pending, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, ok := m.Number()
	if !ok && len(c.garbled) > 0 {
		id, c.garbled = c.garbled[0], c.garbled[1:]
	}
	p, ok := c.pending[id]
	delete(c.pending, id)
	return p, ok
}

// Submit sends a share. When it returns nil, OnResult will get the share once, answered or not.
func (c *Client) Submit(s Share) error {
	s.Worker = c.worker
	return c.send(pending{kind: submit, share: s}, func(dst []byte, id uint64) []byte {
		return stratum.AppendSubmit(dst, id, s.Submit, s.Extranonce2Size)
	})
}

// send writes the line that render makes and remembers what its answer will be about. A line that could not be written
// (as a whole) is not an error here: part of it may have arrived, so it stays pending until the session ends of that
// failure.
func (c *Client) send(p pending, render func(dst []byte, id uint64) []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	id, err := c.register(p)
	if err != nil {
		return err
	}
	c.out = render(c.out[:0], id)
	c.write()
	return nil
}

// register gives a request its id and remembers it.
func (c *Client) register(p pending) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil || c.pending == nil {
		return 0, ErrEnded
	}
	if len(c.pending) >= maxPending {
		return 0, ErrBusy
	}
	c.nextID++
	p.at = time.Now()
	c.pending[c.nextID] = p
	if p.share.Fault.hidesID(c.nextID) {
		c.garbled = append(c.garbled, c.nextID)
	}
	return c.nextID, nil
}

// reply writes the answer to a request of the pool that render makes.
func (c *Client) reply(render func(dst []byte) []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.out = render(c.out[:0])
	c.write()
}

// write sends c.out; c.writing is held. A failed or unfinished write ends the session.
func (c *Client) write() {
	_ = c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	n, err := c.conn.Write(c.out)
	if c.cfg.OnBytes != nil {
		c.cfg.OnBytes(0, n)
	}
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.broken = cmp.Or(c.broken, fmt.Errorf("write to pool: %w", err))
		c.conn.Close() // which ends Run
	}
}

// end reports the shares that nobody will answer any more.
func (c *Client) end() {
	c.job.Store(nil)
	c.mu.Lock()
	left := c.pending
	c.pending = nil
	c.mu.Unlock()
	now := time.Now()
	for _, p := range left {
		if p.kind == submit {
			c.result(Result{Share: p.share, User: c.cfg.User, Outcome: Unanswered, At: now, Latency: now.Sub(p.at)})
		}
	}
}

func (c *Client) step(s Step, took time.Duration) {
	if c.cfg.OnStep != nil {
		c.cfg.OnStep(s, took)
	}
}

func (c *Client) result(r Result) {
	if c.cfg.OnResult != nil {
		c.cfg.OnResult(r)
	}
}
