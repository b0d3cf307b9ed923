package sserver

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"time"

	"btcpool/internal/agentwire"
	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/share"
	"btcpool/internal/stratum"
	"btcpool/sserver/users"
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
	errUserGone = errors.New("user was removed or has another id")
)

// v1 is Stratum V1 as a session speaks it: lines in, answers out. Agents have
// frames between the lines, see agent.go.
type v1 struct{ *session }

// announce is protocol.announce. To an agent, difficulties come before the job
// they are for. Of its own it takes only the first, as that of miners to come. A
// miner that has not said what it is, is asked.
func (c v1) announce(dst []byte, a announcement) []byte {
	if c.Farm != nil {
		dst = agentwire.AppendSetDifficulties(dst, a.farm)
	}
	if a.newDifficulty {
		dst = stratum.AppendSetDifficulty(dst, a.difficulty)
	}
	dst = a.work.v1[a.nonceBytes].AppendTo(dst, a.id, a.later, a.clean)
	if a.first && c.Agent == "" {
		dst = stratum.AppendGetVersion(dst)
	}
	return dst
}

// handle is protocol.handle. A message is a line, or an agent's frame.
func (c v1) handle(in []byte, now time.Time, sc *scratch) (n int, err error) {
	if len(in) > 0 && in[0] == agentwire.Magic {
		f, n, err := agentwire.ParseFrame(in, maxAgentFrame)
		if n == 0 || err != nil {
			return 0, err
		}
		return n, c.handleFrame(f, now, sc)
	}
	line, n, err := stratum.CutLine(in)
	if err != nil {
		c.srv.metrics.badLines.Inc()
		sc.out = stratum.AppendError(sc.out, nil, share.StatusIllegalParams)
		c.discard = maxDiscard
		return 0, err
	}
	if n == 0 {
		return 0, nil
	}
	return n, c.handleLine(line, now, sc)
}

// bad counts what is no request. Too much of it ends the session.
func (c v1) bad() error {
	c.srv.metrics.badLines.Inc()
	if c.BadLines++; c.BadLines == maxBadLines {
		return errBadLines
	}
	return nil
}

func (c v1) handleLine(line []byte, now time.Time, sc *scratch) error {
	if len(line) == 0 {
		return nil
	}
	req, err := stratum.ParseRequest(line)
	if errors.Is(err, stratum.ErrAnswer) {
		if c.Agent == "" { // to the question for it; what else miners answer does not matter
			c.Agent = share.AgentName(string(req.Result))
		}
		return nil
	}
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
		status = c.submit(req, now, sc)
	case "mining.subscribe":
		status = c.subscribe(req, now, sc)
	case "mining.authorize":
		status = c.authorize(req, now, sc)
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
	c.respond(req.ID, status, sc)
	return nil
}

// respond appends the answer to a request of which there is nothing else to say.
func (c v1) respond(id []byte, status share.Status, sc *scratch) {
	switch status {
	case answered:
	case share.StatusAccept, share.StatusAcceptStale:
		sc.out = stratum.AppendTrue(sc.out, id)
	default:
		sc.out = stratum.AppendError(sc.out, id, status)
	}
}

// answered is what the methods below return instead of a verdict when they
// have appended an answer of their own.
const answered share.Status = -1

func (c v1) submit(req stratum.Request, now time.Time, sc *scratch) share.Status {
	if c.Phase != authorized {
		return share.StatusUnauthorized
	}
	sub, err := stratum.ParseSubmit(req.Params, int(c.NonceBytes))
	if err != nil {
		return share.StatusIllegalParams
	}
	number, err := strconv.ParseUint(string(sub.JobID), 10, 64)
	if err != nil || number > math.MaxUint8 && !c.LongIDs {
		c.srv.metrics.judged(share.StatusJobNotFound)
		return share.StatusJobNotFound
	}
	return c.judge(&submission{
		miner:       &c.Miner,
		worker:      c.credited(sub.Worker),
		job:         uint8(number),
		extraNonce2: sub.ExtraNonce2 << (8 * (job.Extranonce2Size - c.NonceBytes)),
		time:        sub.Time,
		nonce:       sub.Nonce,
		versionBits: sub.VersionBits,
		rolled:      sub.Rolled,
	}, now, sc)
}

func (c v1) subscribe(req stratum.Request, now time.Time, sc *scratch) share.Status {
	if c.Phase != connected {
		return share.StatusUnknown
	}
	agent, id, resume, err := stratum.ParseSubscribe(req.Params)
	if err != nil {
		return share.StatusIllegalParams
	}
	c.Agent = share.AgentName(agent)
	switch {
	case isAgent(c.Agent):
		c.Farm = &farm{Miners: make(map[agentwire.Session]*farmMiner)}
		c.NonceBytes = job.Extranonce2Size
	case resume:
		c.resume(id, now)
	}
	long := c.srv.longAgents
	c.Patient = c.Farm != nil || long != nil && long.MatchString(c.Agent)
	c.LongIDs = isNiceHash(c.Agent)
	if nice := c.srv.cfg.NiceHash; !c.OwnFloor && (nice.Forced || c.LongIDs) {
		c.limit(bitcoin.DifficultyAtLeast(nice.MinDifficulty), now)
	}
	c.setPhase(subscribed)
	sc.out = stratum.AppendSubscribed(sc.out, req.ID, c.ID, int(c.NonceBytes))
	return answered
}

func (c v1) authorize(req stratum.Request, now time.Time, sc *scratch) share.Status {
	name, password, err := stratum.ParseAuthorize(req.Params)
	if err != nil {
		return share.StatusIllegalParams
	}
	user, own := splitName(name, c.port.users.Canonical)
	known := func(w worker) bool { return w.UserName == user && w.Name == own }
	switch {
	case slices.ContainsFunc(c.Workers, known):
		return share.StatusAccept
	case c.Phase == connected:
		return share.StatusNotSubscribed
	case user == "":
		return c.refuse("name", share.StatusInvalidUsername, now, sc)
	case len(c.Workers) == maxWorkers:
		return c.refuse("limit", share.StatusUnauthorized, now, sc)
	}
	w := worker{UserName: user, Name: own, ID: share.WorkerID(own)}
	if id, ok := c.port.users.Cached(user); ok {
		w.UserID = id
		return c.admit(w, password, now)
	}
	requestID := bytes.Clone(req.ID)
	c.ask(func() func(*scratch) {
		id, err := c.port.users.ID(context.Background(), user) // has a deadline of its own
		return func(sc *scratch) {
			w.UserID = id
			c.respond(requestID, c.login(w, password, err, sc), sc)
		}
	})
	return answered
}

// login is authorize once the user's id is known, or the reason why it is not.
func (c v1) login(w worker, password string, err error, sc *scratch) share.Status {
	now := c.loop.now
	switch {
	case errors.Is(err, users.ErrUnknown):
		return c.refuse("unknown", share.StatusInvalidUsername, now, sc)
	case err != nil:
		c.srv.loginLog.Warn().Err(err).Str("user", w.UserName).Msg("login not possible")
		return c.refuse("unavailable", share.StatusInternalError, now, sc)
	}
	return c.admit(w, password, now)
}

// admit lets shares be credited to w.
func (c v1) admit(w worker, password string, now time.Time) share.Status {
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
func (c v1) begin(wishes passwordOptions, now time.Time) {
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
func (c v1) refuse(reason string, status share.Status, now time.Time, sc *scratch) share.Status {
	c.srv.metrics.loginsRefused.WithLabelValues(reason).Inc()
	if status != share.StatusInternalError && c.srv.guard.LoginRefused(c.IP, now) {
		c.srv.metrics.bans.WithLabelValues("logins").Inc()
		sc.banned = true
		return share.StatusIPBanned
	}
	return status
}

func (c v1) configure(req stratum.Request, now time.Time, sc *scratch) share.Status {
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

func (c v1) suggestDifficulty(req stratum.Request, now time.Time) share.Status {
	d, err := stratum.ParseSuggestDifficulty(req.Params)
	if err != nil {
		return share.StatusIllegalParams
	}
	c.wish(d, now)
	return share.StatusAccept
}

func (c v1) suggestTarget(req stratum.Request, now time.Time) share.Status {
	d, err := stratum.ParseSuggestTarget(req.Params)
	if err != nil {
		return share.StatusIllegalParams
	}
	c.wish(d, now)
	return share.StatusAccept
}

// wish begins with the difficulty that the miner suggests, unless it only says so
// again: some do for as long as they hear nothing, and would never be lowered.
func (c v1) wish(d bitcoin.Difficulty, now time.Time) {
	if c.Wished && c.Wish == d {
		return
	}
	c.Wished, c.Wish = true, d
	c.suggest(d, now)
}

func (c v1) multiVersion(req stratum.Request) share.Status {
	mask, err := stratum.ParseMultiVersion(req.Params)
	if err != nil {
		return share.StatusIllegalParams
	}
	c.VersionMask = mask & c.srv.versionMask
	return share.StatusAccept
}
