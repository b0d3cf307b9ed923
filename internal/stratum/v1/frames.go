package v1

import (
	"slices"

	"btcpool/internal/agentwire"
	"btcpool/internal/share"
	"btcpool/internal/stratum"
)

// maxFrame is more than what is wanted of any frame to the pool, in bytes. Frames of names that a miner made very long
// are longer. A batch is not: its shares count for the index of verdicts, so that each must be looked at.
const maxFrame = 4096

// takesFrames reports whether frames may come: from a farm proxy, or from who has not logged in as anything else yet.
func (c Conn) takesFrames() bool { return c.Session.SpeaksForFarm() || !c.Session.LoggedIn() }

// frame handles the frame that in begins with, and appends the answer if it has any. Of one that is very long only the
// beginning is waited for.
func (c Conn) frame(dst, in []byte) (out []byte, n int, err error) {
	f, size := agentwire.PeekFrame(in)
	limit := maxFrame
	if c.takesFrames() && f.Command != agentwire.CmdShares {
		limit = agentwire.MaxFrame
	}
	if maxFrame < size && size <= limit {
		if len(in) < maxFrame {
			return dst, 0, nil
		}
		c.Session.CutFrame()
		if f.Command == agentwire.CmdRegister {
			dst, err = c.farmFrame(dst, f)
		}
		n = min(size, len(in))
		c.Skip = size - n
		return dst, n, err
	}
	f, n, err = agentwire.ParseFrame(in, limit)
	switch {
	case err != nil:
		return dst, 0, ErrStream
	case n == 0:
		return dst, 0, nil
	case !c.takesFrames():
		return dst, n, c.bad()
	}
	dst, err = c.farmFrame(dst, f)
	return dst, n, err
}

// farmFrame handles a frame of a farm proxy. One that is malformed is of one of its miners, so it costs the others
// nothing, unless it is a batch. One before the login has no effect: BTCAgent 0.9 registers its miners as soon as it is
// connected, and once more when it has logged in.
func (c Conn) farmFrame(dst []byte, f agentwire.Frame) (out []byte, err error) {
	if !c.Session.LoggedIn() {
		c.Session.IgnoreFrame("early")
		return dst, nil
	}
	switch f.Command {
	case agentwire.CmdSubmit, agentwire.CmdSubmitTime, agentwire.CmdSubmitVersion, agentwire.CmdSubmitTimeVersion:
		sub, err := agentwire.ParseSubmit(f)
		if err != nil {
			c.Session.BadInput()
			return dst, nil
		}
		return c.submitFrame(dst, sub), nil
	case agentwire.CmdShares:
		return c.batch(dst, f)
	case agentwire.CmdRegister:
		reg, err := agentwire.ParseRegister(f)
		if err != nil {
			c.Session.BadInput()
			return dst, nil
		}
		c.Session.Register(uint16(reg.Session), reg.Worker, reg.Agent)
	case agentwire.CmdUnregister:
		un, err := agentwire.ParseUnregister(f)
		if err != nil {
			c.Session.BadInput()
			return dst, nil
		}
		c.Session.Unregister(uint16(un.Session))
	default:
		c.Session.IgnoreFrame("command")
	}
	return dst, nil
}

// submitOf judges a share of a farm proxy's miner, if it is known.
func (c Conn) submitOf(sub agentwire.Submit) (status share.Status, known bool) {
	return c.Session.SubmitOf(uint16(sub.Session), Submission{
		Job:         sub.JobID,
		ExtraNonce2: sub.Session.ExtraNonce2(sub.ExtraNonce2),
		Time:        sub.Time,
		JobTime:     sub.Time == 0,
		Nonce:       sub.Nonce,
		VersionBits: sub.VersionBits,
		Rolled:      sub.Rolled,
	})
}

// batch judges the shares of a batch and answers to all of them. Behind one that cannot be read nobody knows how many
// there are, and which share the next verdict is of.
func (c Conn) batch(dst []byte, f agentwire.Frame) (out []byte, err error) {
	v := agentwire.Verdicts{First: c.Submits}
	malformed := agentwire.ParseShares(f, func(sub agentwire.Submit) {
		status, known := c.submitOf(sub)
		if !known {
			status = share.StatusUnauthorized
		}
		v.Statuses = append(v.Statuses, status.Told())
	})
	c.Submits += uint16(len(v.Statuses))
	dst = v.AppendTo(dst)
	if malformed != nil {
		return dst, ErrStream
	}
	return dst, nil
}

// submitFrame judges a share. One of a miner that nobody registered gets no
// answer: farm proxies do not count it.
func (c Conn) submitFrame(dst []byte, sub agentwire.Submit) []byte {
	status, known := c.submitOf(sub)
	if !known {
		return dst
	}
	if c.Responses {
		dst = agentwire.SubmitResponse{Index: c.Submits, Status: status.Told()}.AppendTo(dst)
	}
	c.Submits++
	return dst
}

// endSession ends another session of the same farm proxy.
func (c Conn) endSession(dst []byte, req stratum.Request) []byte {
	session, key, ok := stratum.ParseEndSession(req.Params)
	if !ok || !c.Session.EndSession(session, key) {
		return stratum.AppendError(dst, req.ID, share.StatusIllegalParams)
	}
	return stratum.AppendTrue(dst, req.ID)
}

// capabilities answers agent.get_capabilities, which comes at any time.
func (c Conn) capabilities(dst []byte, req stratum.Request) []byte {
	wishes, err := stratum.ParseCapabilities(req.Params)
	if err != nil {
		return stratum.AppendError(dst, req.ID, share.StatusIllegalParams)
	}
	c.Responses = c.Responses || slices.Contains(wishes, stratum.SubmitResponses)
	c.SmallDifficulties = c.SmallDifficulties || slices.Contains(wishes, stratum.SmallDifficulties)
	return stratum.AppendCapabilities(dst, req.ID, wishes, c.Session.SessionKey())
}
