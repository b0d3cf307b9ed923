package stratum_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"testing"

	"btcpool/internal/stratum"
)

var submitLine = []byte(`{"params": ["user.worker", "25", "00000000000000ff", "655f0a1c", "1a2b3c4d", "00802000"], "id": 1011, "method": "mining.submit"}`)

// A line in, its verdict's line out, without the hash between them.
func BenchmarkSubmit(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(submitLine)))
	dst := make([]byte, 0, 256)
	for b.Loop() {
		req, _, err := stratum.ParseRequest(submitLine)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := stratum.ParseSubmit(req.Params, 8); err != nil {
			b.Fatal(err)
		}
		dst = stratum.AppendTrue(dst[:0], req.ID)
	}
}

// What the general decoder costs for the same line.
func BenchmarkSubmitEncodingJSON(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(submitLine)))
	for b.Loop() {
		var req struct {
			ID     any
			Method string
			Params []string
		}
		if err := json.Unmarshal(submitLine, &req); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNotify(b *testing.B) {
	j := testJob()
	for range 10 {
		j.MerkleBranch = append(j.MerkleBranch, hash(1))
	}
	notify := stratum.NewNotify(j, j.Coinbase1, j.Coinbase2)
	b.ReportAllocs()
	dst := make([]byte, 0, 4096)
	for b.Loop() {
		dst = notify.AppendTo(dst[:0], 77, 0, false)
	}
}

// notifyLine is the notification of a job as large as mainnet's.
func notifyLine() []byte {
	j := testJob()
	for range 10 {
		j.MerkleBranch = append(j.MerkleBranch, hash(1))
	}
	return stratum.NewNotify(j, make([]byte, 80), make([]byte, 150)).AppendTo(nil, 77, 0, false)
}

// A notification as a miner hears it.
func BenchmarkParseNotify(b *testing.B) {
	line := notifyLine()
	var j stratum.Job
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		m, err := stratum.ParseMessage(line)
		if err != nil {
			b.Fatal(err)
		}
		if err := j.Parse(m.Params); err != nil {
			b.Fatal(err)
		}
	}
}

// The limit: decoding so many hex digits and nothing else.
func BenchmarkNotifyHex(b *testing.B) {
	digits := bytes.Repeat([]byte("0a"), len(notifyLine())/2)
	dst := make([]byte, len(digits)/2)
	b.ReportAllocs()
	b.SetBytes(int64(len(digits)))
	for b.Loop() {
		if _, err := hex.Decode(dst, digits); err != nil {
			b.Fatal(err)
		}
	}
}

// A share out and its verdict in, as a miner does it.
func BenchmarkShare(b *testing.B) {
	verdict := stratum.AppendTrue(nil, []byte("1011"))
	submit := stratum.Submit{Worker: []byte("user.worker"), JobID: []byte("25"), ExtraNonce2: 0xff, Time: 0x655f0a1c, Nonce: 0x1a2b3c4d, Rolled: true}
	dst := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		dst = stratum.AppendSubmit(dst[:0], 1011, submit, 8)
		m, err := stratum.ParseMessage(verdict)
		if err != nil {
			b.Fatal(err)
		}
		if id, ok := m.Number(); !ok || id != 1011 {
			b.Fatal(id)
		}
		if _, _, refused := m.Refusal(); refused {
			b.Fatal("refused")
		}
	}
}
