package share

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"

	"btcpool/internal/bitcoin"
)

// Sizes of shares as older btcpool wrote them, to Kafka and, one after the other, to its daily files.
const (
	SizeV1 = 48
	SizeV2 = 80
)

const heightV1 = 570000 // what btcpool assumes for shares that do not carry a height

// OldSize returns the size of the shares of a daily file that begins with head and is but an array of them, or 0 for any
// other file. It takes SizeV1 bytes to tell the older ones, which have no version.
func OldSize(head []byte) int {
	switch {
	case len(head) >= 4 && binary.LittleEndian.Uint32(head) == versionV2:
		return SizeV2
	case len(head) >= SizeV1 && isV1(head[:SizeV1]):
		return SizeV1
	}
	return 0
}

// isV1 wants every field to be what btcpool wrote, because there is no checksum.
func isV1(src []byte) bool {
	var s Share
	if s.parseV1(src) != nil || s.Validate() != nil || s.UserID < 0 || bits.OnesCount64(binary.LittleEndian.Uint64(src[24:])) != 1 {
		return false
	}
	target, err := bitcoin.TargetFromBits(s.Bits)
	return err == nil && target.Bits() == s.Bits
}

// ParseOld is Parse for shares of one of the old sizes, 4 bytes at least.
func (s *Share) ParseOld(src []byte) error {
	switch {
	case len(src) == SizeV1:
		return s.parseV1(src)
	case len(src) == SizeV2 && binary.LittleEndian.Uint32(src) == versionV2:
		return s.parseV2(src)
	}
	return fmt.Errorf("%w: version %#x, %d bytes", ErrFormat, binary.LittleEndian.Uint32(src), len(src))
}

// parseV2 reads the 80-byte layout.
func (s *Share) parseV2(src []byte) error {
	le := binary.LittleEndian
	sum := uint64(le.Uint32(src)) + // version
		le.Uint64(src[8:]) + // worker id
		uint64(int32(le.Uint32(src[16:]))) + // user id, sign-extended
		uint64(int32(le.Uint32(src[20:]))) + // status, sign-extended
		le.Uint64(src[24:]) + // time
		le.Uint64(src[32:]) + le.Uint64(src[40:]) + // ip
		le.Uint64(src[48:]) + // job id
		le.Uint64(src[56:]) // difficulty
	for at := 64; at < SizeV2; at += 4 { // bits, height, nonce, session id
		sum += uint64(le.Uint32(src[at:]))
	}
	if want := uint32(sum) + uint32(sum>>32); le.Uint32(src[4:]) != want {
		return fmt.Errorf("%w: %#x, want %#x", ErrChecksum, le.Uint32(src[4:]), want)
	}
	*s = Share{
		WorkerID:  int64(le.Uint64(src[8:])),
		UserID:    int32(le.Uint32(src[16:])),
		Status:    Status(le.Uint32(src[20:])),
		Time:      int64(le.Uint64(src[24:])),
		IP:        addrV2([16]byte(src[32:48])),
		JobID:     le.Uint64(src[48:]),
		Bits:      le.Uint32(src[64:]),
		Height:    le.Uint32(src[68:]),
		Nonce:     le.Uint32(src[72:]),
		SessionID: le.Uint32(src[76:]),
	}
	return s.setDifficulty(le.Uint64(src[56:]))
}

// addrV2 reads 16 bytes of address; IPv4 stands in the last four behind zeros.
func addrV2(b [16]byte) netip.Addr {
	if [12]byte(b[:12]) == [12]byte{} {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16(b).Unmap()
}

// parseV1 reads the 48-byte layout of btcpool before 2019.
func (s *Share) parseV1(src []byte) error {
	le := binary.LittleEndian
	*s = Share{
		JobID:    le.Uint64(src),
		WorkerID: int64(le.Uint64(src[8:])),
		IP:       netip.AddrFrom4([4]byte(src[16:20])),
		UserID:   int32(le.Uint32(src[20:])),
		Time:     int64(le.Uint32(src[32:])),
		Bits:     le.Uint32(src[36:]),
		Height:   heightV1,
	}
	switch result := le.Uint32(src[40:]); result {
	case 0:
		s.Status = StatusRejectNoReason
	case 1:
		s.Status = StatusAccept
	default:
		return fmt.Errorf("%w: result %d", ErrField, result)
	}
	return s.setDifficulty(le.Uint64(src[24:]))
}
