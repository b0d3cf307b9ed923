package share_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

// v2 and v1 are shares as older btcpool versions wrote them, laid out by hand.
func v2() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0x00010003)
	b = le.AppendUint32(b, 0) // checksum
	b = le.AppendUint64(b, 0xb00000000000ffff)
	b = le.AppendUint32(b, 42)
	b = le.AppendUint32(b, 1798084231)
	b = le.AppendUint64(b, 1600000123)
	b = append(b, make([]byte, 12)...)
	b = append(b, 203, 0, 113, 9)
	b = le.AppendUint64(b, 0x5f5e100000a10701)
	b = le.AppendUint64(b, 16384)
	b = le.AppendUint32(b, 0x171007ea)
	b = le.AppendUint32(b, 648000)
	b = le.AppendUint32(b, 0xdeadbeef)
	b = le.AppendUint32(b, 0x0700002a)
	const sum = 0x00010003 + 0xb00000000000ffff + 42 + 1798084231 + 1600000123 +
		9<<56 + 113<<48 + 203<<32 + // 0.0.0.0.203.0.113.9 as a little-endian word, the first word is 0
		0x5f5e100000a10701 + 16384 + 0x171007ea + 648000 + 0xdeadbeef + 0x0700002a
	wrapped := uint64(sum & math.MaxUint64)
	le.PutUint32(b[4:], uint32(wrapped)+uint32(wrapped>>32))
	return b
}

func v1() []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(nil, 0x5a5e100000a10701)
	b = le.AppendUint64(b, 0xb00000000000ffff)
	b = append(b, 203, 0, 113, 9)
	b = le.AppendUint32(b, 42)
	b = le.AppendUint64(b, 16384)
	b = le.AppendUint32(b, 1516000123)
	b = le.AppendUint32(b, 0x171007ea)
	b = le.AppendUint32(b, 1)
	return le.AppendUint32(b, 0)
}

func TestGolden(t *testing.T) {
	t.Parallel()
	full := fullShare()
	zero := share.Share{}
	small := fullShare()
	small.Difficulty = -20
	sv, ev := solved(), event()
	for name, got := range map[string][]byte{
		"share-full.hex":  full.AppendTo(nil),
		"share-zero.hex":  zero.AppendTo(nil),
		"share-small.hex": small.AppendTo(nil),
		"share-v2.hex":    v2(),
		"share-v1.hex":    v1(),
		"solved.hex":      sv.AppendTo(nil),
		"event.hex":       ev.AppendTo(nil),
	} {
		checkGolden(t, name, got)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	full, small := fullShare(), fullShare()
	small.Difficulty = -20
	for name, want := range map[string]share.Share{
		"share-full.hex":  full,
		"share-zero.hex":  {},
		"share-small.hex": small,
		"share-v2.hex": {
			JobID: 0x5f5e100000a10701, WorkerID: -5764607523034169345, UserID: 42, Status: share.StatusAccept,
			Time: 1600000123, IP: netip.MustParseAddr("203.0.113.9"), Difficulty: 14, Bits: 0x171007ea,
			Height: 648000, Nonce: 0xdeadbeef, SessionID: 0x0700002a,
		},
		"share-v1.hex": {
			JobID: 0x5a5e100000a10701, WorkerID: -5764607523034169345, UserID: 42, Status: share.StatusAccept,
			Time: 1516000123, IP: netip.MustParseAddr("203.0.113.9"), Difficulty: 14, Bits: 0x171007ea, Height: 570000,
		},
	} {
		var got share.Share
		if err := got.Parse(testkit.Hex(t, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got, cmpAddr); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestEveryFieldTravels fails when a field of Share is added that is not part of the message: TestParse reads back what
// fullShare has.
func TestEveryFieldTravels(t *testing.T) {
	t.Parallel()
	for field, v := range reflect.ValueOf(fullShare()).Fields() {
		if v.IsZero() {
			t.Errorf("fullShare has no %s", field.Name)
		}
	}
}

// shareProto is the message as btcpool declares it; fields it does not know are kept as unknown.
const shareProto = `
name: "share.proto" syntax: "proto2"
message_type { name: "Share"
	field { name: "version"      number: 1  type: TYPE_SINT32 label: LABEL_REQUIRED }
	field { name: "workerhashid" number: 2  type: TYPE_SINT64 label: LABEL_OPTIONAL }
	field { name: "userid"       number: 3  type: TYPE_SINT32 label: LABEL_OPTIONAL }
	field { name: "status"       number: 4  type: TYPE_SINT32 label: LABEL_OPTIONAL }
	field { name: "timestamp"    number: 5  type: TYPE_SINT64 label: LABEL_OPTIONAL }
	field { name: "ip"           number: 6  type: TYPE_STRING label: LABEL_OPTIONAL }
	field { name: "jobid"        number: 7  type: TYPE_UINT64 label: LABEL_OPTIONAL }
	field { name: "sharediff"    number: 8  type: TYPE_UINT64 label: LABEL_OPTIONAL }
	field { name: "blkbits"      number: 9  type: TYPE_UINT32 label: LABEL_OPTIONAL }
	field { name: "height"       number: 10 type: TYPE_UINT32 label: LABEL_OPTIONAL }
	field { name: "nonce"        number: 11 type: TYPE_UINT32 label: LABEL_OPTIONAL }
	field { name: "sessionid"    number: 12 type: TYPE_UINT32 label: LABEL_OPTIONAL }
	field { name: "versionmask"  number: 13 type: TYPE_UINT32 label: LABEL_OPTIONAL }
	field { name: "extuserid"    number: 14 type: TYPE_SINT32 label: LABEL_OPTIONAL }
	field { name: "bitsreached"  number: 15 type: TYPE_UINT32 label: LABEL_OPTIONAL }
}`

// TestInterop has the reference protobuf implementation read our bytes, and us read what it writes.
func TestInterop(t *testing.T) {
	t.Parallel()
	var file descriptorpb.FileDescriptorProto
	if err := prototext.Unmarshal([]byte(shareProto), &file); err != nil {
		t.Fatal(err)
	}
	desc, err := protodesc.NewFile(&file, nil)
	if err != nil {
		t.Fatal(err)
	}
	const text = `version:65540 workerhashid:-5764607523034234881 userid:42 status:1798084231 timestamp:1700000123
		ip:"203.0.113.9" jobid:7301444403210553089 sharediff:16384 blkbits:386198911 height:816000 nonce:3735928559
		sessionid:117440554 versionmask:536862720 extuserid:4711 bitsreached:437400662`
	want := dynamicpb.NewMessage(desc.Messages().ByName("Share"))
	if err := prototext.Unmarshal([]byte(text), want); err != nil {
		t.Fatal(err)
	}

	full := fullShare()
	got := want.New().Interface()
	if err := proto.Unmarshal(full.AppendBody(nil), got); err != nil {
		t.Fatal(err)
	}
	got.ProtoReflect().SetUnknown(nil)
	if !proto.Equal(want, got) {
		t.Errorf("written share reads as %v, want %v", got, want)
	}

	body, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	foreign := fullShare()
	foreign.ID = share.ID{}
	var read share.Share
	if err := read.ParseBody(body); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(foreign, read, cmpAddr); diff != "" {
		t.Errorf("foreign share (-want +got):\n%s", diff)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	field := func(number protowire.Number, v uint64) []byte {
		s := fullShare()
		return protowire.AppendVarint(protowire.AppendTag(s.AppendTo(nil), number, protowire.VarintType), v)
	}
	edit := func(b []byte, at int, v byte) []byte {
		b = bytes.Clone(b)
		b[at] = v
		return b
	}
	full := fullShare()
	foreign := func(difficulty uint64) []byte {
		b := binary.LittleEndian.AppendUint32(nil, share.Version)
		b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), protowire.EncodeZigZag(share.Version))
		return protowire.AppendVarint(protowire.AppendTag(b, 8, protowire.VarintType), difficulty)
	}
	for _, test := range []struct {
		name string
		in   []byte
		want error
	}{
		{"nothing", nil, share.ErrFormat},
		{"three bytes", []byte{4, 0, 1}, share.ErrFormat},
		{"version only", []byte{4, 0, 1, 0}, share.ErrField},
		{"unknown version", []byte{5, 0, 1, 0, 8, 138, 128, 8}, share.ErrFormat},
		{"old 80-byte layout", edit(v2(), 0, 2), share.ErrFormat},
		{"too long", make([]byte, share.MaxSize+1), share.ErrFormat},
		{"torn", full.AppendTo(nil)[:59], share.ErrFormat},
		{"inner version", field(1, protowire.EncodeZigZag(0x00010003)), share.ErrField},
		{"user id over 32 bits", field(3, protowire.EncodeZigZag(1<<31)), share.ErrField},
		{"nonce over 32 bits", field(11, 1<<32), share.ErrField},
		{"exponent above", field(16, protowire.EncodeZigZag(63)), share.ErrField},
		{"exponent below", field(16, protowire.EncodeZigZag(-33)), share.ErrField},
		{"server above 255", field(17, 256), share.ErrField},
		{"ip as number", field(6, 1), share.ErrFormat},
		{"ip", append(full.AppendTo(nil), 6<<3|2, 3, '1', '.', '2'), share.ErrField},
		{"nonce as text", append(full.AppendTo(nil), 11<<3|2, 1, '1'), share.ErrFormat},
		{"no difficulty", foreign(0), share.ErrField},
		{"v2 checksum", edit(v2(), 17, 1), share.ErrChecksum},
		{"v1 result", edit(v1(), 40, 2), share.ErrField},
		{"v1 difficulty", edit(v1(), 25, 0), share.ErrField},
	} {
		var s share.Share
		if err := s.Parse(test.in); !errors.Is(err, test.want) {
			t.Errorf("%s: error %v, want %v", test.name, err, test.want)
		}
	}
}

func TestForeignDifficulty(t *testing.T) {
	t.Parallel()
	for integer, want := range map[uint64]bitcoin.Difficulty{
		1: 0, 2: 1, 3: 1, 16384: 14, 16385: 14, 32767: 14, 1 << 62: 62, 1 << 63: 62, math.MaxUint64: 62,
	} {
		in := v1()
		binary.LittleEndian.PutUint64(in[24:], integer)
		var s share.Share
		if err := s.Parse(in); err != nil || s.Difficulty != want {
			t.Errorf("difficulty %d reads as 2^%d, %v; want 2^%d", integer, s.Difficulty, err, want)
		}
	}
}

func TestUnknownFieldsAreSkipped(t *testing.T) {
	t.Parallel()
	want := fullShare()
	in := want.AppendTo(nil)
	in = protowire.AppendVarint(protowire.AppendTag(in, 20, protowire.VarintType), 1)
	in = protowire.AppendString(protowire.AppendTag(in, 1000, protowire.BytesType), "later")
	in = protowire.AppendFixed64(protowire.AppendTag(in, 21, protowire.Fixed64Type), 1)
	var got share.Share
	if err := got.Parse(in); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpAddr); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"::ffff:192.0.2.1": "192.0.2.1",
		"192.0.2.1":        "192.0.2.1",
		"2001:db8::1":      "2001:db8::1",
		"fe80::1%eth0":     "fe80::1",
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
	} {
		s := fullShare()
		s.IP = netip.MustParseAddr(in)
		var got share.Share
		if err := got.Parse(s.AppendTo(nil)); err != nil || got.IP != netip.MustParseAddr(want) {
			t.Errorf("%s reads as %v, %v; want %s", in, got.IP, err, want)
		}
	}
}

func TestBody(t *testing.T) {
	t.Parallel()
	full := fullShare()
	body, ok := share.Body(full.AppendTo(nil))
	if !ok || !bytes.Equal(body, full.AppendBody(nil)) {
		t.Errorf("Body = %x, %t", body, ok)
	}
	for _, old := range [][]byte{v1(), v2(), nil, {4, 0, 1}} {
		if _, ok := share.Body(old); ok {
			t.Errorf("Body(%x) says it is current", old)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	valid := fullShare()
	if err := valid.Validate(); err != nil {
		t.Errorf("full share: %v", err)
	}
	for name, spoil := range map[string]func(*share.Share){
		"share has no job id":    func(s *share.Share) { s.JobID = 0 },
		"share has no user id":   func(s *share.Share) { s.UserID = 0 },
		"share has no worker id": func(s *share.Share) { s.WorkerID = 0 },
		"share has no height":    func(s *share.Share) { s.Height = 0 },
		"share has no bits":      func(s *share.Share) { s.Bits = 0 },
		"share time 0 is not between 1231006505 and 253402300799":            func(s *share.Share) { s.Time = 0 },
		"share time 253402300800 is not between 1231006505 and 253402300799": func(s *share.Share) { s.Time = 253402300800 },
		"share difficulty exponent 63 is not between -32 and 62":             func(s *share.Share) { s.Difficulty = 63 },
	} {
		s := fullShare()
		spoil(&s)
		if err := s.Validate(); err == nil || err.Error() != name {
			t.Errorf("error %v, want %s", err, name)
		}
	}
}

func TestAllocations(t *testing.T) {
	full := fullShare()
	wire := full.AppendTo(nil)
	buf := make([]byte, 0, share.MaxSize)
	if n := testing.AllocsPerRun(100, func() { buf = full.AppendTo(buf[:0]) }); n != 0 {
		t.Errorf("AppendTo allocates %v times", n)
	}
	var got share.Share
	if n := testing.AllocsPerRun(100, func() { _ = got.Parse(wire) }); n > 1 { // the text of an IPv6 address
		t.Errorf("Parse allocates %v times", n)
	}
}

// sameTheLongWay holds what is made of a record against what is made of it when it has a field that nobody knows, which
// takes every field by itself.
func sameTheLongWay(t rapid.TB, body []byte) {
	t.Helper()
	var short, long share.Share
	err := short.ParseBody(body)
	longErr := long.ParseBody(protowire.AppendVarint(protowire.AppendTag(bytes.Clone(body), 1000, protowire.VarintType), 1))
	if (err == nil) != (longErr == nil) {
		t.Fatalf("%x: %v, with another field %v", body, err, longErr)
	}
	if diff := cmp.Diff(short, long, cmpAddr); err == nil && diff != "" {
		t.Fatalf("%x: (-as it is +with another field)\n%s", body, diff)
	}
}

// TestParseShortWay has records of all kinds, and such with a bit turned over, read by the short way and the long one.
func TestParseShortWay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := fullShare()
		s.Status = share.Status(rapid.Int32().Draw(t, "status"))
		s.WorkerID, s.UserID = rapid.Int64().Draw(t, "worker"), rapid.Int32().Draw(t, "user")
		s.ExtUserID = rapid.SampledFrom([]int32{0, 1, -1 << 31}).Draw(t, "external user")
		s.Time, s.JobID = rapid.Int64().Draw(t, "time"), rapid.Uint64().Draw(t, "job")
		s.Difficulty = bitcoin.Difficulty(rapid.Int8Range(-32, 62).Draw(t, "difficulty"))
		s.Nonce, s.BitsReached = rapid.Uint32().Draw(t, "nonce"), rapid.SampledFrom([]uint32{0, 1, 1 << 31}).Draw(t, "bits reached")
		if rapid.Bool().Draw(t, "no id") {
			s.ID = share.ID{}
		}
		s.IP = rapid.SampledFrom([]netip.Addr{{}, netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::1")}).Draw(t, "ip")
		body := s.AppendBody(nil)
		var got share.Share
		if err := got.ParseBody(body); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, got, cmpAddr); diff != "" {
			t.Fatal(diff)
		}
		sameTheLongWay(t, body)
		body[rapid.IntRange(0, len(body)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		sameTheLongWay(t, body)
	})
}

// TestAddressText wants addresses to be taken and refused as package netip does, whatever short way there is.
func TestAddressText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.StringMatching(`[0-9]{0,4}(\.[0-9]{0,4}){2,4}`),
			rapid.StringMatching(`[0-9a-f:.%x]{0,20}`),
			rapid.Map(rapid.SliceOfN(rapid.Byte(), 4, 4), func(b []byte) string { return netip.AddrFrom4([4]byte(b)).String() }),
		).Draw(t, "text")
		body := protowire.AppendString(protowire.AppendTag(nil, 6, protowire.BytesType), text)
		full := fullShare()
		full.IP = netip.Addr{}
		var got share.Share
		err := got.ParseBody(append(full.AppendBody(nil), body...))
		want, wantErr := netip.ParseAddr(text)
		if text == "" {
			wantErr = nil
		}
		if (err == nil) != (wantErr == nil) || err == nil && got.IP != want.Unmap().WithZone("") {
			t.Fatalf("%q: %v, %v, want %v, %v", text, got.IP, err, want, wantErr)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"share-full.hex", "share-zero.hex", "share-small.hex", "share-v2.hex", "share-v1.hex"} {
		f.Add(testkit.Hex(f, name))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var s, again share.Share
		if s.Parse(in) != nil {
			return
		}
		if err := again.Parse(s.AppendTo(nil)); err != nil {
			t.Fatalf("%x does not read again: %v", in, err)
		}
		if diff := cmp.Diff(s, again, cmpAddr); diff != "" {
			t.Fatalf("%x is not stable:\n%s", in, diff)
		}
		if body, ok := share.Body(in); ok { // what the share log has of it
			if err := again.ParseBody(body); err != nil {
				t.Fatalf("the body of %x does not read: %v", in, err)
			}
			again.ID = s.ID
			if diff := cmp.Diff(s, again, cmpAddr); diff != "" {
				t.Fatalf("the body of %x says something else:\n%s", in, diff)
			}
			sameTheLongWay(t, body)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	full := fullShare()
	buf := full.AppendTo(nil)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = full.AppendTo(buf[:0])
	}
}

func BenchmarkParse(b *testing.B) {
	full := fullShare()
	wire := full.AppendTo(nil)
	var s share.Share
	b.SetBytes(int64(len(wire)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Parse(wire); err != nil {
			b.Fatal(err)
		}
	}
}
