// Package agentwire is the binary half of the BTCAgent protocol: the frames that a farm's proxy and the pool exchange
// between the JSON lines of one connection. It has no sockets and no state. What it parses is hostile: bounded,
// checked, never retained.
//
// A frame is the byte Magic, a Command, the frame's length in bytes as uint16, and a body. All integers are
// little-endian. The layouts are those btcpool and BTCAgent speak, which its published description gets wrong in
// places.
package agentwire

import (
	"encoding/binary"
	"errors"
)

const (
	// Magic begins a frame. No JSON text begins with it.
	Magic = 0x7F
	// MaxFrame is the longest possible frame in bytes.
	MaxFrame = 1<<16 - 1

	headerSize = 4
)

// Command says what a frame is.
type Command uint8

// The commands. Those of a submit differ in the bits that say what follows the nonce.
const (
	CmdRegister          Command = 0x01                               // to the pool: Register
	CmdSubmit            Command = 0x02                               // to the pool: Submit
	CmdSubmitTime                = CmdSubmit | withTime               // to the pool: Submit
	CmdUnregister        Command = 0x04                               // to the pool: Unregister
	CmdSetDifficulty     Command = 0x05                               // to the agent: SetDifficulty
	CmdSubmitResponse    Command = 0x10                               // to the agent: SubmitResponse
	CmdSubmitVersion             = CmdSubmit | withVersion            // to the pool: Submit
	CmdSubmitTimeVersion         = CmdSubmit | withTime | withVersion // to the pool: Submit

	withTime    Command = 0x01
	withVersion Command = 0x10
)

var (
	// ErrStream means that nobody can say where the next frame begins: the connection must end.
	ErrStream = errors.New("not a stream of agent frames")
	// ErrFrame means that a frame is not what its command says. It can be skipped like one of an unknown command.
	ErrFrame = errors.New("malformed agent frame")
)

// Frame is a frame of any command, known or not. Body is a part of what it was parsed from.
type Frame struct {
	Command Command
	Body    []byte
}

// ParseFrame returns the frame that src begins with and its length n in bytes. When src holds only a part of one, n is
// 0 and there is no error. ErrStream is returned as soon as the header shows a wrong magic byte, a length that does not
// even cover the header, or more than limit bytes.
func ParseFrame(src []byte, limit int) (f Frame, n int, err error) {
	if len(src) > 0 && src[0] != Magic {
		return Frame{}, 0, ErrStream
	}
	if len(src) < headerSize {
		return Frame{}, 0, nil
	}
	n = int(binary.LittleEndian.Uint16(src[2:]))
	if n < headerSize || n > limit {
		return Frame{}, 0, ErrStream
	}
	if len(src) < n {
		return Frame{}, 0, nil
	}
	return Frame{Command: Command(src[1]), Body: src[headerSize:n:n]}, n, nil
}

// PeekFrame returns as much of the frame that src begins with as there is, and the length in bytes that its header
// gives it: 0 when there is no whole header.
func PeekFrame(src []byte) (f Frame, size int) {
	if len(src) < headerSize || src[0] != Magic {
		return Frame{}, 0
	}
	size = int(binary.LittleEndian.Uint16(src[2:]))
	end := max(headerSize, min(size, len(src)))
	return Frame{Command: Command(src[1]), Body: src[headerSize:end:end]}, size
}

func appendHeader(dst []byte, c Command, size int) []byte {
	return binary.LittleEndian.AppendUint16(append(dst, Magic, byte(c)), uint16(size))
}

// Session is how an agent and the pool name a miner on their connection.
type Session uint16

// MaxSession is the last Session: an agent serves up to 65,535 miners.
const MaxSession Session = 0xFFFE

// parseSession reads the session that src begins with, which has 2 bytes or more.
func parseSession(src []byte) (Session, error) {
	s := Session(binary.LittleEndian.Uint16(src))
	if s > MaxSession {
		return 0, ErrFrame
	}
	return s, nil
}

func appendSession(dst []byte, s Session) []byte {
	return binary.LittleEndian.AppendUint16(dst, uint16(s))
}
