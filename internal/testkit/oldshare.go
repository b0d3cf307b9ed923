package testkit

import (
	"encoding/binary"
	"math"

	"btcpool/internal/share"
)

// OldShare returns a share as btcpool wrote it before it had protobuf, in share.SizeV1 or share.SizeV2 bytes.
func OldShare(s share.Share, size int) []byte {
	le := binary.LittleEndian
	ip := s.IP.As16()
	if size == share.SizeV1 {
		b := le.AppendUint64(nil, s.JobID)
		b = le.AppendUint64(b, uint64(s.WorkerID))
		b = append(b, ip[12:]...)
		b = le.AppendUint32(b, uint32(s.UserID))
		b = le.AppendUint64(b, s.Difficulty.Integer())
		b = le.AppendUint32(b, uint32(s.Time))
		b = le.AppendUint32(b, s.Bits)
		accepted := uint32(0)
		if s.Status == share.StatusAccept {
			accepted = 1
		}
		b = le.AppendUint32(b, accepted)
		return append(b, 0, 0, 0, 0)
	}
	b := le.AppendUint64(nil, 0x00010003) // and no checksum yet
	b = le.AppendUint64(b, uint64(s.WorkerID))
	b = le.AppendUint32(b, uint32(s.UserID))
	b = le.AppendUint32(b, uint32(s.Status))
	b = le.AppendUint64(b, uint64(s.Time))
	if s.IP.Is4() {
		clear(ip[:12])
	}
	b = append(b, ip[:]...)
	b = le.AppendUint64(b, s.JobID)
	b = le.AppendUint64(b, s.Difficulty.Integer())
	var sum uint64
	for at := 0; at < len(b); at += 8 {
		if at == 16 { // signed numbers of 32 bits
			sum += uint64(s.UserID) + uint64(s.Status)
			continue
		}
		sum += le.Uint64(b[at:])
	}
	for _, v := range []uint32{s.Bits, s.Height, s.Nonce, s.SessionID} {
		b = le.AppendUint32(b, v)
		sum += uint64(v)
	}
	le.PutUint32(b[4:], uint32(sum&math.MaxUint32)+uint32(sum>>32))
	return b
}
