package gbtmaker_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/rs/zerolog"

	"btcpool/gbtmaker"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/service"
)

// busyNode serves templates of 3,000 transactions, 1.5 MB in all, as Bitcoin
// Core does.
type busyNode struct {
	height atomic.Int64
	before string // of a template, up to the block that it builds on
	after  string
	socket zmq4.Socket
}

func startBusyNode(b *testing.B) (node *busyNode, url, zmq string) {
	b.Helper()
	random := rand.NewChaCha8([32]byte{})
	data := make([]byte, 500)
	var txs []string
	for i := range 3000 {
		_, _ = random.Read(data)
		id := sha256.Sum256(data)
		txs = append(txs, fmt.Sprintf(`{"data":"%x","txid":"%x","hash":"%[2]x","depends":[],"fee":%d,"sigops":4,"weight":2000}`, data, id, i))
	}
	node = &busyNode{
		before: `{"result":{"version":536870912,"rules":["csv","!segwit"],"previousblockhash":"`,
		after: `","transactions":[` + strings.Join(txs, ",") + `],"coinbasevalue":312500000,"mintime":1,"curtime":2,"bits":"1d00ffff",` +
			`"default_witness_commitment":"6a24aa21a9ed` + strings.Repeat("00", 32) + `","height":`,
		socket: zmq4.NewPub(context.Background(), zmq4.WithLogger(log.New(io.Discard, "", 0))),
	}
	node.height.Store(10)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	zmq = "tcp://" + ln.Addr().String()
	ln.Close()
	if err := node.socket.Listen(zmq); err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(node)
	b.Cleanup(func() {
		server.Close()
		node.socket.Close()
	})
	return node, server.URL, zmq
}

func (n *busyNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var request struct{ Method string }
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	height := n.height.Load()
	hash := fmt.Sprintf("%064x", height)
	if request.Method == "getblockchaininfo" {
		fmt.Fprintf(w, `{"result":{"chain":"main","blocks":%d,"headers":%[1]d,"bestblockhash":%q},"error":null}`, height, hash)
		return
	}
	tail := strconv.FormatInt(height+1, 10) + `},"error":null,"id":"1"}`
	w.Header().Set("Content-Length", strconv.Itoa(len(n.before)+len(hash)+len(n.after)+len(tail)))
	for _, part := range []string{n.before, hash, n.after, tail} {
		_, _ = io.WriteString(w, part)
	}
}

// block makes a block and announces it.
func (n *busyNode) block(b *testing.B) {
	b.Helper()
	height := n.height.Add(1)
	hash, err := hex.DecodeString(fmt.Sprintf("%064x", height))
	if err != nil {
		b.Fatal(err)
	}
	seq := binary.LittleEndian.AppendUint32(nil, uint32(height))
	if err := n.socket.Send(zmq4.NewMsgFrom([]byte("hashblock"), hash, seq)); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkBlockToTopic measures from the block on the node, announced by
// ZeroMQ, to its template with a reader of the topic, beside a bare
// getblocktemplate. Broker, node and reader share the processor with gbtmaker.
func BenchmarkBlockToTopic(b *testing.B) {
	node, url, zmq := startBusyNode(b)
	b.Run("bare", func(b *testing.B) {
		report(b, func() time.Time {
			resp, err := http.Post(url, "application/json", strings.NewReader(`{"method":"getblocktemplate"}`))
			if err != nil {
				b.Fatal(err)
			}
			defer resp.Body.Close()
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				b.Fatal(err)
			}
			return time.Now()
		})
	})
	b.Run("gbtmaker", func(b *testing.B) {
		cfg := gbtmaker.DefaultConfig()
		cfg.PollInterval = service.Duration(30 * time.Second)
		cfg.RepeatInterval = service.Duration(30 * time.Second)
		cfg.Nodes = []noderpc.Config{{URL: url, User: "user", Password: "secret", ZMQ: zmq}}
		cfg.Kafka = startKafka(b)
		s, err := gbtmaker.New(cfg, service.Deps{Log: zerolog.Nop()})
		if err != nil {
			b.Fatal(err)
		}
		background(b, s.Run)
		reader, err := bus.New(cfg.Kafka, service.Deps{Log: zerolog.Nop()})
		if err != nil {
			b.Fatal(err)
		}
		type message struct {
			at    time.Time
			value []byte
		}
		arrived := make(chan message, 1000)
		background(b, func(ctx context.Context) error {
			defer reader.Close()
			return reader.Read(ctx, cfg.Kafka.Topics.RawGBT, bus.Earliest(), func(m bus.Message) error {
				arrived <- message{time.Now(), m.Value}
				return nil
			})
		})
		<-arrived
		for heard := false; !heard; { // the subscription takes a moment to arrive
			node.block(b)
			select {
			case <-arrived:
				heard = true
			case <-time.After(100 * time.Millisecond):
			}
		}
		report(b, func() time.Time {
			node.block(b)
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
				if int64(template.Height) == node.height.Load()+1 {
					return m.at
				}
			}
		})
	})
}

// report calls f for the benchmark and reports how long it took until the times
// that it returns.
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
