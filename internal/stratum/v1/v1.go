// Package v1 is the server's side of a conversation in Stratum V1: lines and, from farm proxies like BTCAgent, binary
// frames between the lines.
//
// It parses what the peer sends, asks its Session, which decides, and appends the answers. It knows nothing of users,
// shares' worth, difficulty rules, clocks and sockets, so that whoever serves miners can use it: sserver today, a farm
// proxy for the machines behind it. The formats are those of internal/stratum and internal/agentwire.
package v1

import (
	"bytes"
	"errors"
	"math"
	"strconv"

	"btcpool/internal/agentwire"
	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/share"
	"btcpool/internal/stratum"
)

// Session decides what a peer may do and what becomes of it. Slices that it is given are parts of the input, valid
// during the call.
type Session interface {
	// Subscribe begins. Software is what the peer says it is, "" if it does not; with resume it asks for the
	// extranonce1 that it had before.
	Subscribe(software string, before uint32, resume bool) (Subscription, share.Status)
	// Name says what the peer is, when it did not say so with Subscribe.
	Name(software string)
	// LogIn has shares credited to a worker. Without done the status comes later, through Conn.LoggedIn, and nothing
	// may be handled until then.
	LogIn(name string, wishes Wishes) (status share.Status, done bool)
	// LoggedIn reports whether a login was granted.
	LoggedIn() bool
	// VersionBits are those that may be rolled at all (BIP 320).
	VersionBits() uint32
	// RollVersion says which of them the peer will roll, and which it could.
	RollVersion(mask, wished uint32)
	// WishDifficulty asks to begin with a difficulty.
	WishDifficulty(bitcoin.Difficulty)
	// LimitDifficulty asks for no difficulty below floor.
	LimitDifficulty(floor bitcoin.Difficulty)
	// Submit judges a share. Without done the status comes later, through AppendVerdict, and other messages may be
	// handled until then.
	Submit(Submission) (status share.Status, done bool)

	// SessionKey is by what a farm proxy may end this session from another connection, where the end of this one is not
	// seen; 0: it cannot.
	SessionKey() uint64
	// EndSession ends another session, before anything else is handled, or says that the key is not its.
	EndSession(extraNonce1 uint32, key uint64) (ok bool)
	// SpeaksForFarm reports whether the peer is a farm proxy that has logged in. The methods below are called for
	// nobody else; miners behind it have numbers.
	SpeaksForFarm() bool
	// Register takes a miner in, in place of one with the same number.
	Register(number uint16, worker, software string)
	// Unregister lets a miner go.
	Unregister(number uint16)
	// SubmitOf judges a share of a miner, or says that there is no such miner.
	SubmitOf(number uint16, sub Submission) (status share.Status, known bool)

	// BadInput counts what is no proper request or frame.
	BadInput()
	// Gibberish reports whether there was too much lately of what is not even JSON, of which there is more now.
	Gibberish() (tooMuch bool)
	// CutFrame counts a frame of which only the beginning is looked at.
	CutFrame()
	// IgnoreFrame counts a frame that has no effect because it is "early", before the login, or of an unknown "command".
	IgnoreFrame(reason string)
}

// Subscription is what a session gets when it begins.
type Subscription struct {
	ExtraNonce1     uint32
	ExtraNonce2Size uint8 // bytes, at most 8, or job.GrandExtranonce2Size
	UniqueJobIDs    bool  // no job id may come twice, as NiceHash asks
}

// Submission is what a miner found.
type Submission struct {
	ID          []byte // JSON text of the request; nil in a frame
	Worker      []byte // who is to be credited, as the miner writes it
	Job         uint8  // the last number by which the miner knows its job, modulo 256
	NoJob       bool   // it names a job that cannot be one
	ExtraNonce2 uint64 // its 8 bytes in the coinbase as a big-endian number
	Prefix      uint32 // the bytes before them, if the extranonce2 has job.GrandExtranonce2Size
	Time        uint32
	JobTime     bool // Time was not given: it is the job's
	Nonce       uint32
	VersionBits uint32
	Rolled      bool // VersionBits were given
}

// State is how far a conversation has come: a plain value, which another process may go on with. The zero value is the
// beginning.
type State struct {
	ExtraNonce2Size   uint8
	UniqueJobIDs      bool
	Named             bool   // the peer has said what it is
	Skip              int    // bytes to come that are the end of a frame and not wanted
	Responses         bool   // a farm proxy wants verdicts on shares
	SmallDifficulties bool   // a farm proxy understands those below 1
	Submits           uint16 // how many a farm proxy's miners have made, modulo 2^16
	LoginID           []byte // JSON text of the request whose answer comes later
	Unclear           bool   // a wish of that login
}

// Conn is a conversation.
type Conn struct {
	*State
	Session Session
}

// Error ends a conversation.
type Error struct{ text, reason string }

func (e *Error) Error() string { return e.text }

// Reason is a label for metrics.
func (e *Error) Reason() string { return e.reason }

// Why a conversation ends.
var (
	ErrLineTooLong = &Error{"sends a line that is too long", "line too long"}
	ErrBadInput    = &Error{"sends no JSON", "bad lines"}
	ErrStream      = &Error{"sends no stream of frames", "bad frame"}
)

// Handle handles the first message of in, a request or a frame, and appends the answer to dst. The message's length n is
// 0 when not all of it has arrived. An error ends the conversation, after the answer.
func (c Conn) Handle(dst, in []byte) (out []byte, n int, err error) {
	if c.Skip > 0 {
		n = min(c.Skip, len(in))
		c.Skip -= n
		return dst, n, nil
	}
	if len(in) > 0 && in[0] == agentwire.Magic {
		return c.frame(dst, in)
	}
	line, n, err := stratum.CutLine(in)
	if err != nil {
		c.Session.BadInput()
		return stratum.AppendError(dst, nil, share.StatusIllegalParams), 0, ErrLineTooLong
	}
	if n == 0 {
		return dst, 0, nil
	}
	dst, took, err := c.line(dst, line)
	if took < len(line) {
		n = took // another request follows on the line
	}
	return dst, n, err
}

// bad counts what is no request. Too much of it ends the conversation.
func (c Conn) bad() error {
	c.Session.BadInput()
	if c.Session.Gibberish() {
		return ErrBadInput
	}
	return nil
}

// line handles the first request on a line, whose length is n.
func (c Conn) line(dst, line []byte) (out []byte, n int, err error) {
	req, n, err := stratum.ParseRequest(line)
	switch {
	case err == nil:
		return c.request(dst, req), n, nil
	case errors.Is(err, stratum.ErrBlank):
		return dst, n, nil
	case errors.Is(err, stratum.ErrAnswer):
		c.answer(req)
		return dst, n, nil
	}
	dst = stratum.AppendError(dst, req.ID, share.StatusIllegalParams)
	if errors.Is(err, stratum.ErrSyntax) {
		return dst, n, c.bad()
	}
	c.Session.BadInput()
	return dst, n, nil
}

// answer takes the peer's answer to the one question that it is asked: what it is.
func (c Conn) answer(req stratum.Request) {
	if !c.Named {
		software := share.AgentName(string(req.Result))
		c.Named = software != ""
		c.Session.Name(software)
	}
}

// request appends the answer to a request.
func (c Conn) request(dst []byte, req stratum.Request) []byte {
	switch string(req.Method) {
	case "mining.submit":
		if status, done := c.submit(req); done {
			dst = AppendVerdict(dst, req.ID, status)
		}
		return dst
	case "mining.subscribe":
		return c.subscribe(dst, req)
	case "mining.authorize":
		return c.authorize(dst, req)
	case "mining.configure":
		return c.configure(dst, req)
	case "mining.suggest_difficulty":
		return AppendVerdict(dst, req.ID, c.wish(stratum.ParseSuggestDifficulty(req.Params)))
	case "mining.suggest_target":
		return AppendVerdict(dst, req.ID, c.wish(stratum.ParseSuggestTarget(req.Params)))
	case "mining.multi_version":
		return AppendVerdict(dst, req.ID, c.multiVersion(req))
	case "agent.get_capabilities":
		return c.capabilities(dst, req)
	case "agent.end_session":
		return c.endSession(dst, req)
	case "mining.extranonce.subscribe": // the extranonce never changes
		return stratum.AppendTrue(dst, req.ID)
	case "mining.get_transactions":
		return stratum.AppendResult(dst, req.ID, "[]")
	case "mining.ping":
		return stratum.AppendResult(dst, req.ID, `"pong"`)
	}
	return stratum.AppendError(dst, req.ID, share.StatusIllegalMethod)
}

// AppendVerdict appends the answer to a request of which it says the status and no more.
func AppendVerdict(dst, id []byte, status share.Status) []byte {
	if status.IsAccepted() {
		return stratum.AppendTrue(dst, id)
	}
	return stratum.AppendError(dst, id, status)
}

func (c Conn) submit(req stratum.Request) (status share.Status, done bool) {
	if !c.Session.LoggedIn() {
		return share.StatusUnauthorized, true
	}
	var sub stratum.Submit
	var err error
	if c.ExtraNonce2Size == job.GrandExtranonce2Size {
		sub, err = stratum.ParseGrandSubmit(req.Params)
	} else {
		sub, err = stratum.ParseSubmit(req.Params, int(c.ExtraNonce2Size))
		sub.ExtraNonce2 <<= 8 * (job.Extranonce2Size - c.ExtraNonce2Size)
	}
	if err != nil {
		return share.StatusIllegalParams, true
	}
	number, err := strconv.ParseUint(string(sub.JobID), 10, 64)
	return c.Session.Submit(Submission{
		ID:          req.ID,
		Worker:      sub.Worker,
		Job:         uint8(number),
		NoJob:       err != nil || number > math.MaxUint8 && !c.UniqueJobIDs,
		ExtraNonce2: sub.ExtraNonce2,
		Prefix:      sub.Prefix,
		Time:        sub.Time,
		Nonce:       sub.Nonce,
		VersionBits: sub.VersionBits,
		Rolled:      sub.Rolled,
	})
}

func (c Conn) subscribe(dst []byte, req stratum.Request) []byte {
	agent, before, resume := stratum.ParseSubscribe(req.Params)
	software := share.AgentName(agent)
	sub, status := c.Session.Subscribe(software, before, resume)
	if status != share.StatusAccept {
		return stratum.AppendError(dst, req.ID, status)
	}
	c.Named = software != ""
	c.ExtraNonce2Size, c.UniqueJobIDs = sub.ExtraNonce2Size, sub.UniqueJobIDs
	return stratum.AppendSubscribed(dst, req.ID, sub.ExtraNonce1, int(sub.ExtraNonce2Size))
}

func (c Conn) authorize(dst []byte, req stratum.Request) []byte {
	name, password, err := stratum.ParseAuthorize(req.Params)
	if err != nil {
		return stratum.AppendError(dst, req.ID, share.StatusIllegalParams)
	}
	wishes := parsePassword(password)
	status, done := c.Session.LogIn(name, wishes)
	c.Unclear = wishes.Unclear
	if !done {
		c.LoginID = bytes.Clone(req.ID)
		return dst
	}
	return c.loggedIn(dst, req.ID, status)
}

// loggedIn appends the answer to a login, and what the peer should know about it.
func (c Conn) loggedIn(dst, id []byte, status share.Status) []byte {
	dst = AppendVerdict(dst, id, status)
	if status.IsAccepted() && c.Unclear {
		dst = c.AppendMessage(dst, unclearWish)
	}
	return dst
}

// LoggedIn appends the answer to the login that had to wait.
func (c Conn) LoggedIn(dst []byte, status share.Status) []byte {
	id := c.LoginID
	c.LoginID = nil
	return c.loggedIn(dst, id, status)
}

func (c Conn) configure(dst []byte, req stratum.Request) []byte {
	wishes, err := stratum.ParseConfigure(req.Params)
	if err != nil {
		return stratum.AppendError(dst, req.ID, share.StatusIllegalParams)
	}
	mask := wishes.Mask(c.Session.VersionBits())
	rolling := wishes.Asks(stratum.VersionRolling)
	if rolling {
		c.Session.RollVersion(mask, wishes.VersionMask)
	}
	if wishes.Asks(stratum.MinimumDifficulty) && wishes.MinimumDifficulty != nil {
		c.Session.LimitDifficulty(*wishes.MinimumDifficulty)
	}
	dst = stratum.AppendConfigured(dst, req.ID, wishes, mask)
	if rolling && wishes.VersionMask != 0 {
		dst = stratum.AppendSetVersionMask(dst, mask)
	}
	return dst
}

func (c Conn) wish(d bitcoin.Difficulty, err error) share.Status {
	if err != nil {
		return share.StatusIllegalParams
	}
	c.Session.WishDifficulty(d)
	return share.StatusAccept
}

func (c Conn) multiVersion(req stratum.Request) share.Status {
	mask, err := stratum.ParseMultiVersion(req.Params)
	if err != nil {
		return share.StatusIllegalParams
	}
	c.Session.RollVersion(mask&c.Session.VersionBits(), mask)
	return share.StatusAccept
}
