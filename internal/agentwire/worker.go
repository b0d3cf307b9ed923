package agentwire

import (
	"bytes"

	"btcpool/internal/share"
)

// Register tells of a miner that has come. The names are never longer and hold no other characters than those of miners
// that connect directly, so that a worker is the same one either way.
type Register struct {
	Session Session
	Agent   string // the miner's software
	Worker  string // its name without the user's, never empty when parsed
}

// ParseRegister reads a frame of CmdRegister. Names that are too long are cut, whereas btcpool drops a frame of more
// than 100 bytes: the agent would not learn that its miner works for nothing.
func ParseRegister(f Frame) (Register, error) {
	if f.Command != CmdRegister || len(f.Body) < 2+1+1 {
		return Register{}, ErrFrame
	}
	session, err := parseSession(f.Body)
	if err != nil {
		return Register{}, err
	}
	names := f.Body[2 : len(f.Body)-1] // btcpool takes the last byte for a NUL, whatever it is
	agent, worker, _ := bytes.Cut(names, []byte{0})
	worker, _, _ = bytes.Cut(worker, []byte{0})
	return Register{
		Session: session,
		Agent:   share.AgentName(string(agent)),
		Worker:  share.WorkerName(string(worker)),
	}, nil
}

// AppendTo appends r, at most 58 bytes.
func (r Register) AppendTo(dst []byte) []byte {
	agent, worker := share.AgentName(r.Agent), share.WorkerName(r.Worker)
	dst = appendHeader(dst, CmdRegister, headerSize+2+len(agent)+1+len(worker)+1)
	dst = appendSession(dst, r.Session)
	dst = append(append(dst, agent...), 0)
	return append(append(dst, worker...), 0)
}

// Unregister tells of a miner that has gone.
type Unregister struct{ Session Session }

// ParseUnregister reads a frame of CmdUnregister.
func ParseUnregister(f Frame) (Unregister, error) {
	if f.Command != CmdUnregister || len(f.Body) != 2 {
		return Unregister{}, ErrFrame
	}
	session, err := parseSession(f.Body)
	return Unregister{session}, err
}

// AppendTo appends u, 6 bytes.
func (u Unregister) AppendTo(dst []byte) []byte {
	return appendSession(appendHeader(dst, CmdUnregister, headerSize+2), u.Session)
}
