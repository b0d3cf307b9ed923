package gbtmaker_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"btcpool/gbtmaker"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/test/latency/busynode"
)

// BenchmarkBlockToTopic measures from the block on the node, announced by ZeroMQ, to its template with a reader of the
// topic, beside a bare getblocktemplate. Broker, node and reader share the processor with gbtmaker.
func BenchmarkBlockToTopic(b *testing.B) {
	node := busynode.Start(b)
	b.Run("bare", func(b *testing.B) {
		report(b, func() time.Time {
			node.BareTemplate(b)
			return time.Now()
		})
	})
	b.Run("gbtmaker", func(b *testing.B) {
		cfg := gbtmaker.DefaultConfig()
		cfg.Network = "regtest"
		cfg.DataDir = b.TempDir()
		cfg.PollInterval = config.Duration(30 * time.Second)
		cfg.RepeatInterval = config.Duration(30 * time.Second)
		cfg.Nodes = []noderpc.Config{{URL: node.URL, User: "user", Password: "secret", ZMQ: node.ZMQ}}
		cfg.Kafka = testkit.Broker(b)
		s, err := gbtmaker.New(cfg, service.Deps{Log: zerolog.Nop()})
		if err != nil {
			b.Fatal(err)
		}
		testkit.Run(b, s.Run)
		reader := testkit.Bus(b, cfg.Kafka)
		type message struct {
			at    time.Time
			value []byte
		}
		arrived := make(chan message, 1000)
		testkit.Run(b, func(ctx context.Context) error {
			return reader.Read(ctx, cfg.Kafka.Topics.RawGBT, bus.Earliest(), func(m bus.Message) error {
				arrived <- message{time.Now(), m.Value}
				return nil
			})
		})
		<-arrived
		for heard := false; !heard; { // the subscription takes a moment to arrive
			node.Block(b)
			select {
			case <-arrived:
				heard = true
			case <-time.After(100 * time.Millisecond):
			}
		}
		report(b, func() time.Time {
			height := node.Block(b)
			for {
				m := <-arrived
				raw, err := job.ParseRawGBT(m.value)
				if err != nil {
					b.Fatal(err)
				}
				template, err := job.ParseTemplate(raw.Response)
				if err != nil {
					b.Fatal(err)
				}
				if int64(template.Height) == height+1 {
					return m.at
				}
			}
		})
	})
}

// report calls f for the benchmark and reports how long it took until the times that it returns.
func report(b *testing.B, f func() time.Time) {
	b.Helper()
	var took []time.Duration
	for b.Loop() {
		begin := time.Now()
		took = append(took, f().Sub(begin))
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
	b.ReportMetric(ms(took[len(took)/2]), "p50-ms")
	b.ReportMetric(ms(took[len(took)*99/100]), "p99-ms")
}
