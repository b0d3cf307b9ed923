package agentwire

import (
	"encoding/binary"

	"btcpool/internal/share"
)

// submitSize is the body of a submit without time and version bits.
const submitSize = 1 + 2 + 4 + 4

// Submit is a miner's share.
type Submit struct {
	JobID       uint8 // the number of the job on this connection
	Session     Session
	ExtraNonce2 uint32 // the miner's; Session.ExtraNonce2 makes it the pool's
	Nonce       uint32
	Time        uint32 // 0: the job's
	VersionBits uint32 // as in mining.submit
	Rolled      bool   // VersionBits was given
}

// ParseSubmit reads a frame of one of the four submit commands.
func ParseSubmit(f Frame) (Submit, error) {
	if f.Command&^(withTime|withVersion) != CmdSubmit {
		return Submit{}, ErrFrame
	}
	timed, rolled := f.Command&withTime != 0, f.Command&withVersion != 0
	size := submitSize
	if timed {
		size += 4
	}
	if rolled {
		size += 4
	}
	if len(f.Body) != size {
		return Submit{}, ErrFrame
	}
	session, err := parseSession(f.Body[1:])
	if err != nil {
		return Submit{}, err
	}
	s := Submit{
		JobID:       f.Body[0],
		Session:     session,
		ExtraNonce2: binary.LittleEndian.Uint32(f.Body[3:]),
		Nonce:       binary.LittleEndian.Uint32(f.Body[7:]),
		Rolled:      rolled,
	}
	if timed {
		s.Time = binary.LittleEndian.Uint32(f.Body[submitSize:])
	}
	if rolled {
		s.VersionBits = binary.LittleEndian.Uint32(f.Body[size-4:])
	}
	return s, nil
}

// AppendTo appends s as the shortest frame that says it: 15, 19 or 23 bytes.
func (s Submit) AppendTo(dst []byte) []byte {
	command, size := CmdSubmit, headerSize+submitSize
	if s.Time != 0 {
		command |= withTime
		size += 4
	}
	if s.Rolled {
		command |= withVersion
		size += 4
	}
	dst = appendHeader(dst, command, size)
	dst = appendSession(append(dst, s.JobID), s.Session)
	dst = binary.LittleEndian.AppendUint32(dst, s.ExtraNonce2)
	dst = binary.LittleEndian.AppendUint32(dst, s.Nonce)
	if s.Time != 0 {
		dst = binary.LittleEndian.AppendUint32(dst, s.Time)
	}
	if s.Rolled {
		dst = binary.LittleEndian.AppendUint32(dst, s.VersionBits)
	}
	return dst
}

// SubmitResponse is the pool's verdict on one submit. Only an agent that asked for the capability "subres" understands
// it.
type SubmitResponse struct {
	// Index counts the connection's submits from 0, modulo 2^16: those that ParseSubmit takes and whose session is
	// registered.
	Index  uint16
	Status share.Status
}

// ParseSubmitResponse reads a frame of CmdSubmitResponse.
func ParseSubmitResponse(f Frame) (SubmitResponse, error) {
	if f.Command != CmdSubmitResponse || len(f.Body) != 2+4 {
		return SubmitResponse{}, ErrFrame
	}
	return SubmitResponse{
		Index:  binary.LittleEndian.Uint16(f.Body),
		Status: share.Status(binary.LittleEndian.Uint32(f.Body[2:])),
	}, nil
}

// AppendTo appends r, 10 bytes.
func (r SubmitResponse) AppendTo(dst []byte) []byte {
	dst = appendHeader(dst, CmdSubmitResponse, headerSize+2+4)
	dst = binary.LittleEndian.AppendUint16(dst, r.Index)
	return binary.LittleEndian.AppendUint32(dst, uint32(r.Status))
}
