package share

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"

	"google.golang.org/protobuf/encoding/protowire"

	"btcpool/internal/bitcoin"
)

// Version marks the current share message; version 2 of btcpool had its own number, version 1 none.
const (
	Version   = 0x00010004
	versionV2 = 0x00010003
)

// MaxSize bounds a share message and a record of the daily file, in bytes. Real ones are near 100.
const MaxSize = 4096

// Errors of parsing; what is wrong in detail is in the text around them.
var (
	ErrFormat   = errors.New("not a share message")
	ErrChecksum = errors.New("share checksum does not match")
	ErrField    = errors.New("bad field in share")
)

// Protobuf field numbers.
const (
	fieldVersion     = 1
	fieldWorkerID    = 2
	fieldUserID      = 3
	fieldStatus      = 4
	fieldTime        = 5
	fieldIP          = 6
	fieldJobID       = 7
	fieldDifficulty  = 8
	fieldBits        = 9
	fieldHeight      = 10
	fieldNonce       = 11
	fieldSessionID   = 12
	fieldVersionBits = 13
	fieldExtUserID   = 14
	fieldBitsReached = 15
	fieldExponent    = 16
	fieldServer      = 17
	fieldEpoch       = 18
	fieldSeq         = 19
)

// AppendTo appends s as a Kafka message value.
func (s *Share) AppendTo(dst []byte) []byte {
	return s.AppendBody(binary.LittleEndian.AppendUint32(dst, Version))
}

// AppendBody appends s as a record of the daily file, without the version in front.
func (s *Share) AppendBody(dst []byte) []byte {
	dst = appendSint(dst, fieldVersion, Version)
	dst = appendSint(dst, fieldWorkerID, s.WorkerID)
	dst = appendSint(dst, fieldUserID, int64(s.UserID))
	dst = appendSint(dst, fieldStatus, int64(s.Status))
	dst = appendSint(dst, fieldTime, s.Time)
	dst = appendIP(dst, fieldIP, s.IP)
	dst = appendUint(dst, fieldJobID, s.JobID)
	dst = appendUint(dst, fieldDifficulty, s.Difficulty.Integer())
	dst = appendUint(dst, fieldBits, uint64(s.Bits))
	dst = appendUint(dst, fieldHeight, uint64(s.Height))
	dst = appendUint(dst, fieldNonce, uint64(s.Nonce))
	dst = appendUint(dst, fieldSessionID, uint64(s.SessionID))
	dst = appendUint(dst, fieldVersionBits, uint64(s.VersionBits))
	if s.ExtUserID != 0 {
		dst = appendSint(dst, fieldExtUserID, int64(s.ExtUserID))
	}
	if s.BitsReached != 0 {
		dst = appendUint(dst, fieldBitsReached, uint64(s.BitsReached))
	}
	dst = appendSint(dst, fieldExponent, int64(s.Difficulty))
	if s.ID != (ID{}) {
		dst = appendUint(dst, fieldServer, uint64(s.ID.Server))
		dst = appendUint(dst, fieldEpoch, uint64(s.ID.Epoch))
		dst = appendUint(dst, fieldSeq, s.ID.Seq)
	}
	return dst
}

func appendSint(dst []byte, field protowire.Number, v int64) []byte {
	return appendUint(dst, field, protowire.EncodeZigZag(v))
}

func appendUint(dst []byte, field protowire.Number, v uint64) []byte {
	dst = protowire.AppendTag(dst, field, protowire.VarintType)
	return protowire.AppendVarint(dst, v)
}

// appendIP writes the address as text; the zero address is the empty text. The longest text has 45 bytes, so its length
// always fits the one byte reserved for it.
func appendIP(dst []byte, field protowire.Number, ip netip.Addr) []byte {
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	dst = append(dst, 0)
	start := len(dst)
	if ip.IsValid() {
		dst = ip.Unmap().WithZone("").AppendTo(dst)
	}
	dst[start-1] = byte(len(dst) - start)
	return dst
}

// Body returns the part of a Kafka message value that a daily file stores, or false when the message is of an older
// version and has to be written anew with AppendBody. The result is a part of value.
func Body(value []byte) ([]byte, bool) {
	if len(value) < 4 || binary.LittleEndian.Uint32(value) != Version {
		return nil, false
	}
	return value[4:], true
}

// Parse reads a Kafka message value of any version into s. It does not say whether the share counts: see Validate. It
// keeps no reference to src. After an error s is undefined.
func (s *Share) Parse(src []byte) error {
	if len(src) < 4 || len(src) > MaxSize {
		return fmt.Errorf("%w: %d bytes", ErrFormat, len(src))
	}
	if body, ok := Body(src); ok {
		return s.ParseBody(body)
	}
	return s.ParseOld(src)
}

// ParseBody reads a record of the daily file into s, on the same terms as Parse. Unknown fields are skipped.
func (s *Share) ParseBody(src []byte) error {
	if len(src) > MaxSize {
		return fmt.Errorf("%w: %d bytes", ErrFormat, len(src))
	}
	if s.parseCanonical(src) {
		return nil
	}
	*s = Share{}
	var version int32
	var integer uint64
	var exponent bool
	for len(src) > 0 {
		field, wireType, n := consumeTag(src)
		if n < 0 {
			return fmt.Errorf("%w: tag: %w", ErrFormat, protowire.ParseError(n))
		}
		src = src[n:]
		var v uint64 // of a field of another type 0: it is refused below
		var size int
		if wireType == protowire.VarintType {
			v, size = protowire.ConsumeVarint(src)
		} else {
			size = protowire.ConsumeFieldValue(field, wireType, src)
		}
		if size < 0 {
			return fmt.Errorf("%w: field %d: %w", ErrFormat, field, protowire.ParseError(size))
		}
		value := src[:size]
		src = src[size:]
		want, fits := protowire.VarintType, true
		switch field {
		case fieldVersion:
			version, fits = int32Of(v)
		case fieldWorkerID:
			s.WorkerID = protowire.DecodeZigZag(v)
		case fieldUserID:
			s.UserID, fits = int32Of(v)
		case fieldStatus:
			var status int32
			status, fits = int32Of(v)
			s.Status = Status(status)
		case fieldTime:
			s.Time = protowire.DecodeZigZag(v)
		case fieldIP:
			want = protowire.BytesType
			text, _ := protowire.ConsumeBytes(value)
			if err := s.parseIP(text); err != nil && wireType == want {
				return err
			}
		case fieldJobID:
			s.JobID = v
		case fieldDifficulty:
			integer = v
		case fieldBits:
			s.Bits, fits = uint32Of(v)
		case fieldHeight:
			s.Height, fits = uint32Of(v)
		case fieldNonce:
			s.Nonce, fits = uint32Of(v)
		case fieldSessionID:
			s.SessionID, fits = uint32Of(v)
		case fieldVersionBits:
			s.VersionBits, fits = uint32Of(v)
		case fieldExtUserID:
			s.ExtUserID, fits = int32Of(v)
		case fieldBitsReached:
			s.BitsReached, fits = uint32Of(v)
		case fieldExponent:
			exp := protowire.DecodeZigZag(v)
			fits = exp >= int64(bitcoin.MinDifficulty) && exp <= int64(bitcoin.MaxDifficulty)
			s.Difficulty, exponent = bitcoin.Difficulty(exp), true
		case fieldServer:
			fits = v <= math.MaxUint8
			s.ID.Server = uint8(v)
		case fieldEpoch:
			s.ID.Epoch, fits = uint32Of(v)
		case fieldSeq:
			s.ID.Seq = v
		default:
			continue // of a newer version
		}
		if wireType != want {
			return fmt.Errorf("%w: field %d has wire type %d", ErrFormat, field, wireType)
		}
		if !fits {
			return fmt.Errorf("%w: field %d has value %d", ErrField, field, v)
		}
	}
	if version != Version {
		return fmt.Errorf("%w: message version %#x, want %#x", ErrField, version, Version)
	}
	if exponent {
		return nil
	}
	return s.setDifficulty(integer)
}

// parseCanonical reads what AppendBody writes, with an IPv4 address, without having to ask which field is next. It
// returns false for everything else, right or wrong.
func (s *Share) parseCanonical(src []byte) bool {
	version, src := cutSint(src, fieldVersion)
	worker, src := cutSint(src, fieldWorkerID)
	user, src := cutSint(src, fieldUserID)
	status, src := cutSint(src, fieldStatus)
	time, src := cutSint(src, fieldTime)
	ip, src := cutText(src, fieldIP)
	job, src := cutUint(src, fieldJobID)
	_, src = cutUint(src, fieldDifficulty) // the exponent rules over it
	bits, src := cutUint(src, fieldBits)
	height, src := cutUint(src, fieldHeight)
	nonce, src := cutUint(src, fieldNonce)
	session, src := cutUint(src, fieldSessionID)
	versionBits, src := cutUint(src, fieldVersionBits)
	var extUser int64
	var reached, server, epoch, seq uint64
	if isNext(src, fieldExtUserID) {
		extUser, src = cutSint(src, fieldExtUserID)
	}
	if isNext(src, fieldBitsReached) {
		reached, src = cutUint(src, fieldBitsReached)
	}
	exponent, src := cutSint(src, fieldExponent)
	if len(src) > 0 {
		server, src = cutUint(src, fieldServer)
		epoch, src = cutUint(src, fieldEpoch)
		seq, src = cutUint(src, fieldSeq)
	}
	four, ok := parseIPv4(ip)
	if !ok || src == nil || len(src) > 0 || version != Version ||
		int64(int32(user)) != user || int64(int32(status)) != status || int64(int32(extUser)) != extUser ||
		(bits|height|nonce|session|versionBits|reached|epoch)>>32 != 0 || server > math.MaxUint8 ||
		exponent < int64(bitcoin.MinDifficulty) || exponent > int64(bitcoin.MaxDifficulty) {
		return false
	}
	*s = Share{
		ID:    ID{uint8(server), uint32(epoch), seq},
		JobID: job, WorkerID: worker, UserID: int32(user), ExtUserID: int32(extUser), Status: Status(status), Time: time,
		IP: netip.AddrFrom4(four), Difficulty: bitcoin.Difficulty(exponent), Bits: uint32(bits), Height: uint32(height),
		Nonce: uint32(nonce), SessionID: uint32(session), VersionBits: uint32(versionBits), BitsReached: uint32(reached),
	}
	return true
}

// isNext tells whether a message goes on with a field of numbers.
func isNext(src []byte, field protowire.Number) bool {
	tag := byte(field) << 3
	return len(src) > 1 && (field < 16 && src[0] == tag || field >= 16 && src[0] == tag|0x80 && src[1] == byte(field>>4))
}

// cutUint cuts a field off the front of src. The rest is nil, and has no field, if another one is there.
func cutUint(src []byte, field protowire.Number) (v uint64, rest []byte) {
	if !isNext(src, field) {
		return 0, nil
	}
	v, n := uvarint(src[1+field>>4:])
	if n <= 0 {
		return 0, nil
	}
	return v, src[1+int(field>>4)+n:]
}

func cutSint(src []byte, field protowire.Number) (v int64, rest []byte) {
	zigzag, rest := cutUint(src, field)
	return protowire.DecodeZigZag(zigzag), rest
}

func cutText(src []byte, field protowire.Number) (text, rest []byte) {
	if len(src) < 2 || src[0] != byte(field)<<3|byte(protowire.BytesType) || int(src[1]) > min(len(src)-2, 127) {
		return nil, nil
	}
	end := 2 + int(src[1])
	return src[2:end], src[end:]
}

// uvarint is binary.Uvarint, which goes byte by byte, for eight bytes at once: nearly all numbers of a share have fewer.
func uvarint(b []byte) (v uint64, n int) {
	if len(b) < 8 {
		return binary.Uvarint(b)
	}
	v = binary.LittleEndian.Uint64(b)
	last := ^v & 0x8080808080808080 // the bits that are set in all bytes but the last one
	if last == 0 {
		return longUvarint(b)
	}
	v &= last ^ (last - 1)
	return join(v), bits.TrailingZeros64(last)/8 + 1
}

// longUvarint is uvarint for a number of more than eight bytes.
func longUvarint(b []byte) (v uint64, n int) {
	v = join(binary.LittleEndian.Uint64(b))
	switch {
	case len(b) > 8 && b[8] < 0x80:
		return v | uint64(b[8])<<56, 9
	case len(b) > 9 && b[9] <= 1:
		return v | uint64(b[8]&0x7f)<<56 | uint64(b[9])<<63, 10
	}
	return binary.Uvarint(b)
}

// join puts the lowest seven bits of eight bytes together.
func join(v uint64) uint64 {
	v = v&0x007f007f007f007f | v&0x7f007f007f007f00>>1
	v = v&0x00003fff00003fff | v&0x3fff00003fff0000>>2
	return v&0x000000000fffffff | v&0x0fffffff00000000>>4
}

// consumeTag is protowire.ConsumeTag, without its work for tags of one byte.
func consumeTag(src []byte) (protowire.Number, protowire.Type, int) {
	if b := src[0]; 8 <= b && b < 0x80 {
		return protowire.Number(b >> 3), protowire.Type(b & 7), 1
	}
	return protowire.ConsumeTag(src)
}

func int32Of(zigzag uint64) (int32, bool) {
	v := protowire.DecodeZigZag(zigzag)
	return int32(v), v == int64(int32(v))
}

func uint32Of(v uint64) (uint32, bool) { return uint32(v), v <= math.MaxUint32 }

// parseIP takes the text form of an address; the empty text is the zero address. Zones mean nothing on another machine
// and are dropped.
func (s *Share) parseIP(text []byte) error {
	s.IP = netip.Addr{}
	if len(text) == 0 {
		return nil
	}
	if four, ok := parseIPv4(text); ok {
		s.IP = netip.AddrFrom4(four)
		return nil
	}
	ip, err := netip.ParseAddr(string(text))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrField, err)
	}
	s.IP = ip.Unmap().WithZone("")
	return nil
}

// parseIPv4 takes four numbers as netip.ParseAddr does, which wants a string.
func parseIPv4(text []byte) (four [4]byte, ok bool) {
	at, value, digits := 0, 0, 0
	for _, c := range text {
		switch {
		case '0' <= c && c <= '9' && (digits == 0 || value > 0):
			if value, digits = value*10+int(c-'0'), digits+1; value > math.MaxUint8 {
				return four, false
			}
		case c == '.' && digits > 0 && at < 3:
			four[at] = byte(value)
			at, value, digits = at+1, 0, 0
		default:
			return four, false
		}
	}
	four[at] = byte(value)
	return four, at == 3 && digits > 0
}

// setDifficulty takes the difficulty as btcpool writes it. btcpool only deals in powers of two; anything between two of
// them counts as the lower, so that no share is worth more than was proven.
func (s *Share) setDifficulty(integer uint64) error {
	if integer == 0 {
		return fmt.Errorf("%w: difficulty is zero", ErrField)
	}
	s.Difficulty = min(bitcoin.Difficulty(bits.Len64(integer)-1), bitcoin.MaxDifficulty)
	return nil
}
