package agentwire

import (
	"encoding/binary"
	"math"
	"slices"

	"btcpool/internal/share"
)

// The frames of the capability "batch", which btcpool and BTCAgent do not know.
const (
	CmdShares   Command = 0x20 // to the pool: Shares
	CmdVerdicts Command = 0x23 // to the agent: Verdicts
)

// The version bits that fit into a batch: 16 of them, those of BIP 320.
const (
	batchVersionShift = 13
	batchVersionBits  = 0xFFFF << batchVersionShift
)

// Shares are several miners' shares of one job. The body is, behind the job's number (uint8) and a time (uint32, 0 when
// no share has one of its own), a row for each share, in ascending order of sessions:
//
//	varint  4 × (session − that of the row before, or 0) + 2 if it has version bits + 1 if it has a time of its own
//	varint  extranonce2
//	uint32  nonce
//	uint16  version bits, shifted right by 13
//	varint  time − that of the head, zigzag
//
// Every row counts for the index of verdicts, whether its session is registered or not.
type Shares struct {
	JobID uint8
	Rows  []Submit // of which JobID is not looked at
}

// Fits reports whether a share can be said in a batch.
func (s Submit) Fits() bool { return s.VersionBits&^batchVersionBits == 0 }

// AppendTo appends s, whose rows are sorted and fit, and returns how many of them found room in a frame of limit bytes.
func (s Shares) AppendTo(dst []byte, limit int) (out []byte, rows int) {
	start := len(dst)
	dst = append(appendHeader(dst, CmdShares, 0), s.JobID)
	var base uint32
	for _, r := range s.Rows {
		if base = r.Time; base != 0 {
			break
		}
	}
	dst = binary.LittleEndian.AppendUint32(dst, base)
	var last Session
	for _, r := range s.Rows {
		head := uint64(r.Session-last) << 2
		if r.Time != 0 {
			head |= 1
		}
		if r.Rolled {
			head |= 2
		}
		before := len(dst)
		dst = binary.AppendUvarint(dst, head)
		dst = binary.AppendUvarint(dst, uint64(r.ExtraNonce2))
		dst = binary.LittleEndian.AppendUint32(dst, r.Nonce)
		if r.Rolled {
			dst = binary.LittleEndian.AppendUint16(dst, uint16(r.VersionBits>>batchVersionShift))
		}
		if r.Time != 0 {
			dst = binary.AppendVarint(dst, int64(r.Time)-int64(base))
		}
		if len(dst)-start > min(limit, MaxFrame) {
			dst = dst[:before]
			break
		}
		last = r.Session
		rows++
	}
	binary.LittleEndian.PutUint16(dst[start+2:], uint16(len(dst)-start))
	return dst, rows
}

// ParseShares calls f with each row of a frame of CmdShares. All rows before one that is not what it should be have been
// given to f.
func ParseShares(frame Frame, f func(Submit)) error {
	b := frame.Body
	if frame.Command != CmdShares || len(b) < 1+4 {
		return ErrFrame
	}
	job, base := b[0], binary.LittleEndian.Uint32(b[1:])
	b = b[1+4:]
	session := uint64(0)
	for len(b) > 0 {
		head, n := binary.Uvarint(b)
		if n <= 0 || head>>2 > uint64(MaxSession) {
			return ErrFrame
		}
		b = b[n:]
		session += head >> 2
		extraNonce2, n := binary.Uvarint(b)
		if n <= 0 || extraNonce2 > math.MaxUint32 || session > uint64(MaxSession) {
			return ErrFrame
		}
		b = b[n:]
		s := Submit{JobID: job, Session: Session(session), ExtraNonce2: uint32(extraNonce2), Rolled: head&2 != 0}
		size := 4
		if s.Rolled {
			size += 2
		}
		if len(b) < size {
			return ErrFrame
		}
		s.Nonce = binary.LittleEndian.Uint32(b)
		if s.Rolled {
			s.VersionBits = uint32(binary.LittleEndian.Uint16(b[4:])) << batchVersionShift
		}
		b = b[size:]
		if head&1 != 0 {
			offset, n := binary.Varint(b)
			at := int64(base) + offset
			if n <= 0 || at <= 0 || at > math.MaxUint32 {
				return ErrFrame
			}
			s.Time = uint32(at)
			b = b[n:]
		}
		f(s)
	}
	return nil
}

// Verdicts are those on shares that follow each other. The body is the index of the first (uint16), their number as
// varint, and for each that is not StatusAccept a varint of its distance from the one before that is not, or from the
// first of all, and one of its status.
type Verdicts struct {
	// First is the index of the first, counted like SubmitResponse.Index.
	First    uint16
	Statuses []share.Status
}

// AppendTo appends v.
func (v Verdicts) AppendTo(dst []byte) []byte {
	start := len(dst)
	dst = appendHeader(dst, CmdVerdicts, 0)
	dst = binary.LittleEndian.AppendUint16(dst, v.First)
	dst = binary.AppendUvarint(dst, uint64(len(v.Statuses)))
	last := 0
	for i, status := range v.Statuses {
		if status != share.StatusAccept {
			dst = binary.AppendUvarint(dst, uint64(i-last))
			dst = binary.AppendUvarint(dst, uint64(uint32(status)))
			last = i
		}
	}
	binary.LittleEndian.PutUint16(dst[start+2:], uint16(len(dst)-start))
	return dst
}

// maxVerdicts is how many there may be in a frame: more than rows that find room in one.
const maxVerdicts = 1 << 14

// ParseVerdicts reads a frame of CmdVerdicts.
func ParseVerdicts(f Frame) (Verdicts, error) {
	b := f.Body
	if f.Command != CmdVerdicts || len(b) < 2+1 {
		return Verdicts{}, ErrFrame
	}
	v := Verdicts{First: binary.LittleEndian.Uint16(b)}
	count, n := binary.Uvarint(b[2:])
	if n <= 0 || count > maxVerdicts {
		return Verdicts{}, ErrFrame
	}
	b = b[2+n:]
	v.Statuses = slices.Repeat([]share.Status{share.StatusAccept}, int(count))
	at := uint64(0)
	for len(b) > 0 {
		gap, n := binary.Uvarint(b)
		if n <= 0 || gap > count {
			return Verdicts{}, ErrFrame
		}
		b = b[n:]
		status, n := binary.Uvarint(b)
		if at += gap; n <= 0 || status > math.MaxUint32 || at >= count {
			return Verdicts{}, ErrFrame
		}
		b = b[n:]
		v.Statuses[at] = share.Status(uint32(status))
	}
	return v, nil
}
