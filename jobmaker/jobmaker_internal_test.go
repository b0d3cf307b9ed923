package jobmaker

import (
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/service"
)

// rawTemplate is the message with a template of 3,000 transactions and 1.5 MB.
func rawTemplate() []byte {
	txs := transactions(3000, func(int) bool { return true })
	for _, tx := range txs {
		tx.TxIn[0].Witness = wire.TxWitness{make([]byte, 80)}
	}
	return job.NewRawGBT(response(900_000, txs, nil), time.Now()).AppendTo(nil)
}

// BenchmarkTemplateToJob is the way of a template through jobmaker, from its message to that of the job: about 6 ms of
// one core, four times the limit below. Beside the hash, which is the template's name, it goes into base64, into
// checking two texts of JSON and into stepping over the transactions, a tenth to a sixth each. Ids taken from decoded
// transactions, as btcpool does, would make job.ParseTemplate take twice as long or more, encoding/json three times.
func BenchmarkTemplateToJob(b *testing.B) {
	cfg := DefaultConfig()
	cfg.Network = "regtest"
	cfg.PayoutAddress = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
	s, err := New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()})
	if err != nil {
		b.Fatal(err)
	}
	message := rawTemplate()
	ids := job.NewIDs(1)
	now := time.Now()
	empty := s.schedule
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		s.schedule = empty
		s.takeTemplate(message, now)
		w, why := s.due(now)
		if why != newHeight {
			b.Fatalf("reason %q", why)
		}
		j, err := s.builder.Load().build(w, ids.Next(now), now)
		if err != nil || len(j.AppendTo(nil)) == 0 {
			b.Fatal(err)
		}
	}
}

// The limit of the above: the hash of the template and the merkle branch.
func BenchmarkTemplateToJobLimit(b *testing.B) {
	raw, err := job.ParseRawGBT(rawTemplate())
	if err != nil {
		b.Fatal(err)
	}
	ids := make([]chainhash.Hash, 3000)
	b.ReportAllocs()
	for b.Loop() {
		bitcoin.DoubleSHA256(raw.Response)
		bitcoin.MerkleBranch(ids)
	}
}
