package agentwire_test

import (
	"testing"

	"btcpool/internal/agentwire"
	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

var benchSubmit = agentwire.Submit{
	JobID: 0xa9, Session: 0x1122, ExtraNonce2: 0x11223344, Nonce: 0xaabbccdd,
	Time: 0x57bd2ad0, VersionBits: 0x00120000, Rolled: true,
}

func TestSubmitAllocatesNothing(t *testing.T) {
	buf := make([]byte, 0, 64)
	allocs := testing.AllocsPerRun(100, func() {
		buf = benchSubmit.AppendTo(buf[:0])
		f, _, _ := agentwire.ParseFrame(buf, agentwire.MaxFrame)
		s, err := agentwire.ParseSubmit(f)
		if err != nil || s != benchSubmit {
			t.Fatalf("%+v, error %v", s, err)
		}
		buf = agentwire.SubmitResponse{Status: share.StatusAccept}.AppendTo(buf[:0])
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkParseSubmit(b *testing.B) {
	in := benchSubmit.AppendTo(nil)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		f, _, err := agentwire.ParseFrame(in, agentwire.MaxFrame)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := agentwire.ParseSubmit(f); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendSubmit(b *testing.B) {
	dst := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		dst = benchSubmit.AppendTo(dst[:0])
	}
	b.SetBytes(int64(len(dst)))
}

// The limit of both: the bytes of the frame, moved and not understood.
func BenchmarkCopySubmit(b *testing.B) {
	in := benchSubmit.AppendTo(nil)
	dst := make([]byte, 0, 64)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		dst = append(dst[:0], in...)
	}
}

func BenchmarkAppendSubmitResponse(b *testing.B) {
	dst := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		dst = agentwire.SubmitResponse{Index: 5, Status: share.StatusAccept}.AppendTo(dst[:0])
	}
	b.SetBytes(int64(len(dst)))
}

// An agent of 10,000 miners whose difficulties all change.
func BenchmarkAppendSetDifficulties(b *testing.B) {
	difficulties := make(map[agentwire.Session]bitcoin.Difficulty)
	for s := range agentwire.Session(10_000) {
		difficulties[s] = bitcoin.Difficulty(10 + s%10)
	}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = agentwire.AppendSetDifficulties(dst[:0], difficulties)
	}
	b.SetBytes(int64(len(dst)))
}
