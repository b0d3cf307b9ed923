package sserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/agentwire"
	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/stratum"
)

const (
	// maxBadLines is how many lines that are no JSON, or frames that are none, a
	// miner may send.
	maxBadLines = 5
	// maxWorkers is how many may be authorized on one connection.
	maxWorkers = 100
)

var (
	errBadLines = errors.New("sends no JSON")
	errSpool    = errors.New("shares cannot be kept")
	errBanned   = errors.New("banned")
)

// v1 is a session that speaks Stratum V1: lines in, answers out. Agents have
// frames between the lines, see agent.go.
type v1 struct {
	*session
	lines    *stratum.LineReader
	idle     time.Duration // how long the miner may be silent once it is authorized
	badLines int
}

// announceV1 is session.announce.
func announceV1(dst []byte, a announcement) []byte {
	if a.newDifficulty {
		dst = stratum.AppendSetDifficulty(dst, a.difficulty)
	}
	return a.work.v1.AppendTo(dst, a.id, a.clean)
}

// serve answers requests until the connection ends. It returns why this side
// ended it, or nil. Shares that were read before ctx ends are still answered.
func (c *v1) serve(ctx context.Context, conn net.Conn) error {
	c.lines = stratum.NewLineReader(meter{conn, c.srv.metrics.bytesIn})
	c.idle = c.srv.cfg.TCPReadTimeout.Std()
	c.readUntil(time.Now().Add(c.srv.cfg.LoginTimeout.Std()))
	for {
		switch err := c.lines.Fill(); {
		case errors.Is(err, stratum.ErrLineTooLong):
			c.srv.metrics.badLines.Inc()
			_ = c.send(stratum.AppendError(nil, nil, share.StatusIllegalParams))
			linger(conn)
			return err
		case errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case err != nil:
			return nil // the miner has gone
		}
		now := time.Now()
		n, err := c.answer(ctx, now)
		if err != nil {
			return err
		}
		if n > 0 && c.Phase == authorized {
			c.readUntil(now.Add(c.idle))
		}
		c.pace(ctx, n, now)
	}
}

// answer handles the lines and frames that have arrived and answers them all at
// once, when the shares among them are durable. It returns their number.
func (c *v1) answer(ctx context.Context, now time.Time) (n int, err error) {
	m, more, err := c.next()
	if !more {
		return 0, err
	}
	sc := c.srv.scratch.Get().(*scratch)
	defer c.srv.scratch.Put(sc)
	sc.out, sc.seq, sc.banned = sc.out[:0], 0, false
	for more && err == nil {
		n++
		switch err = c.handle(ctx, m, now, sc); {
		case err != nil:
		case sc.banned:
			err = errBanned
		default:
			m, more, err = c.next()
		}
	}
	if sc.seq > 0 {
		if err := c.srv.shares.Wait(ctx, sc.seq); err != nil {
			return n, fmt.Errorf("%w: %w", errSpool, err) // no answer is better than a false one
		}
		c.srv.metrics.shareSeconds.Observe(time.Since(now).Seconds())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Ready = c.Phase == authorized
	sc.out = c.update(sc.out)
	if sendErr := c.send(sc.out); err == nil && sendErr != nil {
		err = sendErr
	}
	return n, err
}

// pace makes a session wait that sends more than its share: it is not read from
// meanwhile.
func (c *v1) pace(ctx context.Context, messages int, now time.Time) {
	rate := c.srv.cfg.Limits.LinesPerSec
	if messages == 0 || rate == 0 || !c.srv.guard.watches(c.IP) {
		return
	}
	if c.Farm != nil {
		rate += len(c.Farm.Miners)
	}
	pause := c.Conduct.spent(messages, rate, now)
	if pause == 0 {
		return
	}
	c.srv.metrics.pauses.Inc()
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// message is what a miner sends: a line, or an agent's frame.
type message struct {
	line  []byte // nil: the frame counts
	frame agentwire.Frame
}

// next returns the message that has arrived next, if it has completely.
func (c *v1) next() (m message, ok bool, err error) {
	if pending := c.lines.Pending(); len(pending) > 0 && pending[0] == agentwire.Magic {
		f, n, err := agentwire.ParseFrame(pending, maxAgentFrame)
		c.lines.Skip(n)
		return message{frame: f}, n > 0 && err == nil, err
	}
	line := c.lines.Next()
	return message{line: line}, line != nil, nil
}

// handle appends the answer to one message. An error ends the session.
func (c *v1) handle(ctx context.Context, m message, now time.Time, sc *scratch) error {
	if m.line == nil {
		return c.handleFrame(ctx, m.frame, now, sc)
	}
	return c.handleLine(ctx, m.line, now, sc)
}

// bad counts what is no request. Too much of it ends the session.
func (c *v1) bad() error {
	c.srv.metrics.badLines.Inc()
	if c.badLines++; c.badLines == maxBadLines {
		return errBadLines
	}
	return nil
}

func (c *v1) handleLine(ctx context.Context, line []byte, now time.Time, sc *scratch) error {
	if len(line) == 0 {
		return nil
	}
	req, err := stratum.ParseRequest(line)
	if err != nil {
		sc.out = stratum.AppendError(sc.out, req.ID, share.StatusIllegalParams)
		if errors.Is(err, stratum.ErrSyntax) {
			return c.bad()
		}
		c.srv.metrics.badLines.Inc()
		return nil
	}
	var status share.Status
	switch string(req.Method) {
	case "mining.submit":
		status = c.submit(ctx, req, now, sc)
	case "mining.subscribe":
		status = c.subscribe(req, now, sc)
	case "mining.authorize":
		status = c.authorize(ctx, req, sc)
	case "mining.configure":
		status = c.configure(req, now, sc)
	case "mining.suggest_difficulty":
		status = c.suggestDifficulty(req, now)
	case "mining.suggest_target":
		status = c.suggestTarget(req, now)
	case "mining.multi_version":
		status = c.multiVersion(req)
	case "agent.get_capabilities":
		status = c.capabilities(req, sc)
	case "mining.extranonce.subscribe": // the extranonce never changes
		status = share.StatusAccept
	case "mining.get_transactions":
		sc.out = stratum.AppendResult(sc.out, req.ID, "[]")
		return nil
	case "mining.ping":
		sc.out = stratum.AppendResult(sc.out, req.ID, `"pong"`)
		return nil
	default:
		status = share.StatusIllegalMethod
	}
	switch status {
	case answered:
	case share.StatusAccept:
		sc.out = stratum.AppendTrue(sc.out, req.ID)
	default:
		sc.out = stratum.AppendError(sc.out, req.ID, status)
	}
	return nil
}

// answered is what the methods below return instead of a verdict when they
// have appended an answer of their own.
const answered share.Status = -1

func (c *v1) submit(ctx context.Context, req stratum.Request, now time.Time, sc *scratch) share.Status {
	if c.Phase != authorized {
		return share.StatusUnauthorized
	}
	sub, err := stratum.ParseSubmit(req.Params, extraNonce2Size)
	if err != nil {
		return share.StatusIllegalParams
	}
	number, err := strconv.ParseUint(string(sub.JobID), 10, 64)
	if err != nil || number > math.MaxUint8 && !c.LongIDs {
		c.srv.metrics.judged(share.StatusJobNotFound)
		return share.StatusJobNotFound
	}
	return c.judge(ctx, &submission{
		miner:       &c.Miner,
		worker:      c.credited(sub.Worker),
		job:         uint8(number),
		extraNonce2: sub.ExtraNonce2,
		time:        sub.Time,
		nonce:       sub.Nonce,
		versionBits: sub.VersionBits,
		rolled:      sub.Rolled,
	}, now, sc)
}

func (c *v1) subscribe(req stratum.Request, now time.Time, sc *scratch) share.Status {
	if c.Phase != connected {
		return share.StatusUnknown
	}
	agent, id, resume, err := stratum.ParseSubscribe(req.Params)
	if err != nil {
		return share.StatusIllegalParams
	}
	c.Agent = clean(agent[:min(len(agent), maxAgent)])
	switch {
	case isAgent(c.Agent):
		c.Farm = &farm{Miners: make(map[agentwire.Session]*farmMiner)}
		c.announce = announceAgent
		c.out.allow(maxUnsentAgent)
	case resume:
		c.resume(id, now)
	}
	if long := c.srv.longAgents; c.Farm != nil || long != nil && long.MatchString(c.Agent) {
		c.idle = c.srv.cfg.LongTimeout.Std()
	}
	c.LongIDs = isNiceHash(c.Agent)
	if nice := c.srv.cfg.NiceHash; !c.OwnFloor && (nice.Forced || c.LongIDs) {
		c.limit(bitcoin.DifficultyAtLeast(nice.MinDifficulty), now)
	}
	c.setPhase(subscribed)
	sc.out = stratum.AppendSubscribed(sc.out, req.ID, c.ID, extraNonce2Size)
	return answered
}

func (c *v1) authorize(ctx context.Context, req stratum.Request, sc *scratch) share.Status {
	name, password, err := stratum.ParseAuthorize(req.Params)
	if err != nil {
		return share.StatusIllegalParams
	}
	user, own := splitName(name, c.srv.cfg.Users.CaseInsensitive)
	known := func(w worker) bool { return w.UserName == user && w.Name == own }
	switch {
	case slices.ContainsFunc(c.Workers, known):
		return share.StatusAccept
	case c.Phase == connected:
		return share.StatusNotSubscribed
	case user == "":
		return c.refuse("name", share.StatusInvalidUsername, sc)
	case len(c.Workers) == maxWorkers:
		return c.refuse("limit", share.StatusUnauthorized, sc)
	}
	w := worker{UserName: user, Name: own, ID: share.WorkerID(own)}
	switch id, err := c.srv.users.id(ctx, user); {
	case errors.Is(err, errUnknownUser):
		return c.refuse("unknown", share.StatusInvalidUsername, sc)
	case err != nil:
		c.srv.loginLog.Warn().Err(err).Str("user", user).Msg("login not possible")
		return c.refuse("unavailable", share.StatusInternalError, sc)
	default:
		w.UserID = id
	}
	now := time.Now()
	if c.Phase != authorized { // the difficulty is the connection's
		c.begin(parsePassword(password), now)
		c.setPhase(authorized)
	}
	c.Workers = append(c.Workers, w)
	c.event(share.MinerConnect, w, c.Agent, "new_conn", now)
	c.srv.log.Debug().Str("session", c.sessionID()).Str("worker", w.fullName()).Str("agent", c.Agent).
		Stringer("ip", c.IP).Msg("miner authorized")
	return share.StatusAccept
}

// begin sets the difficulty that a miner begins with.
func (c *v1) begin(wishes passwordOptions, now time.Time) {
	if wishes.hasFloor {
		c.limit(wishes.floor, now)
	}
	start := c.Miner.Difficulty.Difficulty
	if wishes.hasStart {
		start = wishes.start
	}
	c.suggest(start, now) // the time before the login does not count
	c.Miner.Fixed = c.Farm != nil
}

// refuse counts a login that is not granted, those against its address that are
// not our fault.
func (c *v1) refuse(reason string, status share.Status, sc *scratch) share.Status {
	c.srv.metrics.loginsRefused.WithLabelValues(reason).Inc()
	if status != share.StatusInternalError && c.srv.guard.loginRefused(c.IP, time.Now()) {
		c.srv.metrics.bans.WithLabelValues("logins").Inc()
		sc.banned = true
		return share.StatusIPBanned
	}
	return status
}

func (c *v1) configure(req stratum.Request, now time.Time, sc *scratch) share.Status {
	wishes, err := stratum.ParseConfigure(req.Params)
	if err != nil {
		return share.StatusIllegalParams
	}
	if wishes.Asks(stratum.VersionRolling) {
		c.VersionMask = wishes.Mask(c.srv.versionMask)
	}
	if wishes.Asks(stratum.MinimumDifficulty) && wishes.MinimumDifficulty != nil {
		c.OwnFloor = true
		c.limit(*wishes.MinimumDifficulty, now)
	}
	sc.out = stratum.AppendConfigured(sc.out, req.ID, wishes, c.VersionMask)
	if wishes.Asks(stratum.VersionRolling) && wishes.VersionMask != 0 {
		sc.out = stratum.AppendSetVersionMask(sc.out, c.VersionMask)
	}
	return answered
}

func (c *v1) suggestDifficulty(req stratum.Request, now time.Time) share.Status {
	d, err := stratum.ParseSuggestDifficulty(req.Params)
	if err != nil {
		return share.StatusIllegalParams
	}
	c.suggest(d, now)
	return share.StatusAccept
}

func (c *v1) suggestTarget(req stratum.Request, now time.Time) share.Status {
	d, err := stratum.ParseSuggestTarget(req.Params)
	if err != nil {
		return share.StatusIllegalParams
	}
	c.suggest(d, now)
	return share.StatusAccept
}

func (c *v1) multiVersion(req stratum.Request) share.Status {
	mask, err := stratum.ParseMultiVersion(req.Params)
	if err != nil {
		return share.StatusIllegalParams
	}
	c.VersionMask = mask & c.srv.versionMask
	return share.StatusAccept
}

// meter counts what is read.
type meter struct {
	r     io.Reader
	bytes prometheus.Counter
}

func (m meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.bytes.Add(float64(n))
	return n, err
}

// linger reads on for a moment: closing with unread input would reset the
// connection and could take the last answer with it.
func linger(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok && tcp.CloseWrite() == nil {
		_ = tcp.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.CopyN(io.Discard, tcp, 1<<20)
	}
}
