package blkmaker

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire/v2"
	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/handover"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
)

// BenchmarkSolvedShareToNode measures from the writing of a solved share to its topic, or from its being handed over,
// until a node has the whole submitblock request, for a block of 3,000 transactions and 1.5 MB. Beside it: the bare
// request, without a pool, and the write to disk that comes before it.
func BenchmarkSolvedShareToNode(b *testing.B) {
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	arrived := make(chan time.Time, 1)
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		result := `null`
		if strings.Contains(string(body[:100]), "submitblock") {
			arrived <- time.Now()
		} else {
			result = `{"chain":"regtest","blocks":1,"bestblockhash":"00","confirmations":1}`
		}
		fmt.Fprintf(w, `{"result":%s,"error":null,"id":"1"}`, result)
	}))
	b.Cleanup(node.Close)
	cfg := DefaultConfig()
	cfg.Network, cfg.DataDir = "regtest", b.TempDir()
	cfg.Kafka = testkit.Broker(b)
	cfg.Database.DSN = "sqlite:" + filepath.Join(b.TempDir(), "pool.db")
	cfg.Nodes = []noderpc.Config{{URL: node.URL, User: "u", Password: "p"}}
	cfg.Handover = handover.ServerConfig{Listen: "127.0.0.1:0", Secret: handover.Secret{Token: testToken}}

	var txs []*wire.MsgTx
	for i := range 3000 {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: bitcoin.DoubleSHA256(fmt.Append(nil, i))}, nil, nil))
		tx.AddTxOut(wire.NewTxOut(1, make([]byte, 440)))
		txs = append(txs, tx)
	}
	_, j, raw := solve(b, txs, true)
	template := job.NewRawGBT(templateResponse(b, raw), time.Now())
	j.GBTHash = template.Hash

	s, err := New(cfg, service.Deps{Log: zerolog.Nop()})
	check(err)
	testkit.Run(b, s.Run)
	topics := cfg.Kafka.Topics
	client := testkit.Bus(b, cfg.Kafka, topics.RawGBT, topics.Job, topics.SolvedShare)
	check(client.Write(b.Context(), topics.RawGBT, bus.Message{Value: template.AppendTo(nil)}))
	check(client.Write(b.Context(), topics.Job, bus.Message{Value: j.AppendTo(nil)}))
	testkit.Eventually(b, "the job is there", func() bool {
		_, _, _, err := s.cache.find(j.ID)
		return err == nil && s.Ready() == nil
	})

	report := func(b *testing.B, run func() time.Duration) {
		var took []time.Duration
		for b.Loop() {
			took = append(took, run())
			for len(s.room) > 0 { // a block comes alone
				time.Sleep(time.Millisecond)
			}
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/p50")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms/p99")
		b.ReportMetric(0, "ns/op")
	}
	direct := sender(b, s.Addr().String())
	b.Run("direct", func(b *testing.B) {
		report(b, func() time.Duration {
			j.Time++ // another header
			solved := testkit.Solve(b, j).AppendTo(nil)
			start := time.Now()
			direct.Send(solved)
			return (<-arrived).Sub(start)
		})
	})
	b.Run("kafka", func(b *testing.B) {
		report(b, func() time.Duration {
			j.Time++ // another header
			solved := bus.Message{Value: testkit.Solve(b, j).AppendTo(nil)}
			start := time.Now()
			check(client.Write(b.Context(), topics.SolvedShare, solved))
			return (<-arrived).Sub(start)
		})
	})
	b.Run("bare request", func(b *testing.B) {
		blk, err := assemble(testkit.Solve(b, j), j, raw)
		check(err)
		rpc, err := noderpc.New(cfg.Nodes[0])
		check(err)
		defer rpc.Close()
		report(b, func() time.Duration {
			start := time.Now()
			_, err := rpc.SubmitBlock(b.Context(), hex.EncodeToString(blk.raw))
			check(err)
			return (<-arrived).Sub(start)
		})
	})
	b.Run("bare write", func(b *testing.B) {
		file, err := os.Create(filepath.Join(b.TempDir(), "file"))
		check(err)
		defer file.Close()
		line := make([]byte, 700)
		report(b, func() time.Duration {
			start := time.Now()
			_, err := file.Write(line)
			check(err)
			check(file.Sync())
			return time.Since(start)
		})
	})
}

// templateResponse is what a node would answer to getblocktemplate, as far as blkmaker looks into it.
func templateResponse(b *testing.B, txs []string) []byte {
	type entry struct {
		Data string `json:"data"`
	}
	var entries []entry
	for _, tx := range txs {
		entries = append(entries, entry{hex.EncodeToString([]byte(tx))})
	}
	text, err := json.Marshal(map[string]any{"result": map[string]any{"height": 700, "transactions": entries}, "error": nil, "id": "1"})
	if err != nil {
		b.Fatal(err)
	}
	return text
}
