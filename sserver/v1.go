package sserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/share"
	"btcpool/internal/stratum"
)

// maxBadLines is how many lines that are no JSON a miner may send.
const maxBadLines = 5

var (
	errBadLines = errors.New("sends no JSON")
	errSpool    = errors.New("shares cannot be kept")
)

// v1 is a session that speaks Stratum V1: lines in, answers out.
type v1 struct {
	*session
	lines    *stratum.LineReader
	badLines int
}

// announceV1 is session.announce.
func announceV1(dst []byte, a announcement) []byte {
	if a.newDifficulty {
		dst = stratum.AppendSetDifficulty(dst, a.difficulty)
	}
	return a.work.v1.AppendTo(dst, a.number, a.clean)
}

// serve answers requests until the connection ends. It returns why this side
// ended it, or nil. Shares that were read before ctx ends are still answered.
func (c *v1) serve(ctx context.Context, conn net.Conn) error {
	c.lines = stratum.NewLineReader(meter{conn, c.srv.metrics.bytesIn})
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
		switch heard, err := c.answer(ctx, now); {
		case err != nil:
			return err
		case heard && c.Phase == authorized:
			c.readUntil(now.Add(c.srv.cfg.TCPReadTimeout.Std()))
		}
	}
}

// answer handles the lines that have arrived and answers them all at once,
// when the shares among them are durable. It reports whether there was any.
func (c *v1) answer(ctx context.Context, now time.Time) (heard bool, err error) {
	line := c.lines.Next()
	if line == nil {
		return false, nil
	}
	sc := c.srv.scratch.Get().(*scratch)
	defer c.srv.scratch.Put(sc)
	sc.out, sc.seq = sc.out[:0], 0
	for ; line != nil && err == nil; line = c.lines.Next() {
		err = c.handle(ctx, line, now, sc)
	}
	if sc.seq > 0 {
		if err := c.srv.shares.Wait(ctx, sc.seq); err != nil {
			return true, fmt.Errorf("%w: %w", errSpool, err) // no answer is better than a false one
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
	return true, err
}

// handle appends the answer to one line. An error ends the session.
func (c *v1) handle(ctx context.Context, line []byte, now time.Time, sc *scratch) error {
	if len(line) == 0 {
		return nil
	}
	req, err := stratum.ParseRequest(line)
	if err != nil {
		c.srv.metrics.badLines.Inc()
		sc.out = stratum.AppendError(sc.out, req.ID, share.StatusIllegalParams)
		if errors.Is(err, stratum.ErrSyntax) {
			c.badLines++
		}
		if c.badLines == maxBadLines {
			return errBadLines
		}
		return nil
	}
	var status share.Status
	switch string(req.Method) {
	case "mining.submit":
		status = c.submit(ctx, req, now, sc)
	case "mining.subscribe":
		status = c.subscribe(req, sc)
	case "mining.authorize":
		status = c.authorize(ctx, req)
	case "mining.configure":
		status = c.configure(req, now, sc)
	case "mining.suggest_difficulty":
		status = c.suggestDifficulty(req, now)
	case "mining.suggest_target":
		status = c.suggestTarget(req, now)
	case "mining.multi_version":
		status = c.multiVersion(req)
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
	number, err := strconv.ParseUint(string(sub.JobID), 10, 8)
	if err != nil {
		c.srv.metrics.judged(share.StatusJobNotFound)
		return share.StatusJobNotFound
	}
	return c.judge(ctx, submission{
		job:         uint8(number),
		extraNonce2: sub.ExtraNonce2,
		time:        sub.Time,
		nonce:       sub.Nonce,
		versionBits: sub.VersionBits,
		rolled:      sub.Rolled,
	}, now, sc)
}

func (c *v1) subscribe(req stratum.Request, sc *scratch) share.Status {
	if c.Phase != connected {
		return share.StatusUnknown
	}
	agent, err := stratum.ParseSubscribe(req.Params)
	if err != nil {
		return share.StatusIllegalParams
	}
	c.Agent = clean(agent[:min(len(agent), maxAgent)])
	c.setPhase(subscribed)
	sc.out = stratum.AppendSubscribed(sc.out, req.ID, c.ID, extraNonce2Size)
	return answered
}

func (c *v1) authorize(ctx context.Context, req stratum.Request) share.Status {
	name, password, err := stratum.ParseAuthorize(req.Params)
	if err != nil {
		return share.StatusIllegalParams
	}
	user, worker := splitName(name, c.srv.cfg.Users.CaseInsensitive)
	switch {
	case c.Phase == authorized && user == c.UserName && worker == c.WorkerName:
		return share.StatusAccept
	case c.Phase != subscribed:
		return share.StatusNotSubscribed
	case user == "":
		return c.refuse("name", share.StatusInvalidUsername)
	}
	switch id, err := c.srv.users.id(ctx, user); {
	case errors.Is(err, errUnknownUser):
		return c.refuse("unknown", share.StatusInvalidUsername)
	case err != nil:
		c.srv.loginLog.Warn().Err(err).Str("user", user).Msg("login not possible")
		return c.refuse("unavailable", share.StatusInternalError)
	default:
		c.UserName, c.UserID = user, id
		c.WorkerName, c.WorkerID = worker, share.WorkerID(worker)
	}
	now := time.Now()
	options := parsePassword(password)
	if options.hasFloor {
		c.limit(options.floor, now)
	}
	start := c.Difficulty.Difficulty
	if options.hasStart {
		start = options.start
	}
	c.suggest(start, now) // the time before the login does not count
	c.setPhase(authorized)
	c.event(share.MinerConnect, "new_conn", now)
	c.srv.log.Debug().Str("session", c.sessionID()).Str("worker", c.fullName()).Str("agent", c.Agent).
		Stringer("ip", c.IP).Msg("miner authorized")
	return share.StatusAccept
}

func (c *v1) refuse(reason string, status share.Status) share.Status {
	c.srv.metrics.loginsRefused.WithLabelValues(reason).Inc()
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
