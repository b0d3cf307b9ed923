package v1

import (
	"slices"

	"btcpool/internal/agentwire"
	"btcpool/internal/share"
	"btcpool/internal/stratum"
)

// maxFrame is more than any frame to the pool needs, in bytes: names are not cut
// before they are sent.
const maxFrame = 1024

// frame appends the answer to one frame of a farm proxy, if it has any.
func (c Conn) frame(dst []byte, f agentwire.Frame) ([]byte, error) {
	if !c.Session.SpeaksForFarm() {
		return dst, c.bad()
	}
	switch f.Command {
	case agentwire.CmdSubmit, agentwire.CmdSubmitTime, agentwire.CmdSubmitVersion, agentwire.CmdSubmitTimeVersion:
		sub, err := agentwire.ParseSubmit(f)
		if err != nil {
			return dst, c.bad()
		}
		return c.submitFrame(dst, sub), nil
	case agentwire.CmdRegister:
		reg, err := agentwire.ParseRegister(f)
		if err != nil {
			return dst, c.bad()
		}
		c.Session.Register(uint16(reg.Session), reg.Worker, reg.Agent)
	case agentwire.CmdUnregister:
		un, err := agentwire.ParseUnregister(f)
		if err != nil {
			return dst, c.bad()
		}
		c.Session.Unregister(uint16(un.Session))
	default:
		c.Session.UnknownCommand()
	}
	return dst, nil
}

// submitFrame judges a share. One of a miner that nobody registered gets no
// answer: farm proxies do not count it.
func (c Conn) submitFrame(dst []byte, sub agentwire.Submit) []byte {
	status, known := c.Session.SubmitOf(uint16(sub.Session), Submission{
		Job:         sub.JobID,
		ExtraNonce2: sub.Session.ExtraNonce2(sub.ExtraNonce2),
		Time:        sub.Time,
		JobTime:     sub.Time == 0,
		Nonce:       sub.Nonce,
		VersionBits: sub.VersionBits,
		Rolled:      sub.Rolled,
	})
	if !known {
		return dst
	}
	if c.Responses {
		dst = agentwire.SubmitResponse{Index: c.Submits, Status: status.Told()}.AppendTo(dst)
	}
	c.Submits++
	return dst
}

// capabilities answers agent.get_capabilities, which comes at any time.
func (c Conn) capabilities(dst []byte, req stratum.Request) []byte {
	wishes, err := stratum.ParseCapabilities(req.Params)
	if err != nil {
		return stratum.AppendError(dst, req.ID, share.StatusIllegalParams)
	}
	c.Responses = c.Responses || slices.Contains(wishes, stratum.SubmitResponses)
	return stratum.AppendCapabilities(dst, req.ID)
}
