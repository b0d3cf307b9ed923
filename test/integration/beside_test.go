//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/compress/snappy"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// beside is a broker whose topics btcpool's services write.
type beside struct {
	version string // of Apache Kafka
	addr    string
	bus     *bus.Client
	topics  bus.Topics
	written int // messages
}

// TestBesideBtcpool starts single services in the place of btcpool's, on each version of Apache Kafka.
func TestBesideBtcpool(t *testing.T) {
	t.Parallel()
	for _, version := range []string{rig.Kafka3, rig.Kafka4} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			b := &beside{version: version, addr: rig.StartKafkaVersion(t, t.TempDir(), version).Addr}
			cfg := bus.DefaultConfig()
			cfg.Brokers = []string{b.addr}
			b.topics = cfg.Topics
			b.bus = testkit.Bus(t, cfg, cfg.Topics.RawGBT, cfg.Topics.Job, cfg.Topics.SolvedShare, cfg.Topics.Share, cfg.Topics.CommonEvents)
			t.Run("sharelogger", b.testSharelogger)
			t.Run("statshttpd", b.testStatshttpd)
			t.Run("blkmaker", b.testBlkmaker)
		})
	}
}

// write appends a message without a time: by btcpool's own version of the request, which only Kafka 3 takes, or as that
// keeps them. Each second one is compressed.
func (b *beside) write(t *testing.T, topic string, value []byte) {
	t.Helper()
	if b.version == rig.Kafka3 {
		var codec compress.Codec
		if b.written++; b.written%2 == 0 {
			codec = &snappy.Codec{Framing: snappy.Unframed}
		}
		testkit.ProduceV0(t, b.addr, topic, testkit.OldSet{Compress: codec}.Encode(t, value))
	} else if err := b.bus.Write(t.Context(), topic, bus.Message{Time: time.UnixMilli(-1), Value: value}); err != nil {
		t.Fatal(err)
	}
}

// start runs a service.
func (b *beside) start(t *testing.T, dir, service, config string) *rig.Process {
	t.Helper()
	return rig.StartService(t, dir, service, service, config+fmt.Sprintf("[kafka]\nbrokers = [%q]\n", b.addr))
}

// shares makes n shares of this second, which have no id, with nonces from first on.
func shares(first, n int) (all []share.Share) {
	for i := range n {
		all = append(all, share.Share{
			JobID: 1, WorkerID: 2, UserID: 3, Status: share.StatusAccept, Time: time.Now().Unix(), Difficulty: 10, Bits: 0x1d00ffff,
			Height: 1, Nonce: uint32(first + i),
		})
	}
	return all
}

func (b *beside) writeShares(t *testing.T, all []share.Share) {
	t.Helper()
	for _, s := range all {
		b.write(t, b.topics.Share, s.AppendTo(nil))
	}
}

// testSharelogger takes over from btcpool's sharelogger, is killed, and gives back, twice.
func (b *beside) testSharelogger(t *testing.T) {
	const group = "sharelog_write_btc"
	dir := t.TempDir()
	pool := &rig.Pool{Log: filepath.Join(dir, "sharelog")}
	if err := os.Mkdir(pool.Log, 0o755); err != nil {
		t.Fatal(err)
	}
	var all []share.Share
	mine := func(n int) {
		t.Helper()
		more := shares(len(all), n)
		all = append(all, more...)
		b.writeShares(t, more)
	}
	logged := func() {
		t.Helper()
		testkit.Until(t, testkit.Patience, "every share is logged once", func(context.Context) error {
			times := make(map[uint32]int)
			for _, s := range pool.ReadLog(t) {
				if times[s.Nonce]++; times[s.Nonce] > 1 {
					t.Fatalf("share %d is in the log twice", s.Nonce)
				}
			}
			if len(times) < len(all) {
				return fmt.Errorf("%d of %d shares", len(times), len(all))
			}
			return nil
		})
	}
	stop := func(p *rig.Process) {
		t.Helper()
		if code, err := p.Stop(); err != nil || code != 0 {
			t.Fatalf("it ended with code %d, %v", code, err)
		}
	}
	var p *rig.Process
	for range 2 {
		committed, err := b.bus.Committed(t.Context(), group, b.topics.Share)
		if err != nil {
			t.Fatal(err)
		}
		from := int(committed[0].Next)
		if from != len(all) {
			t.Fatalf("offset %d is left for btcpool, of %d shares", from, len(all))
		}
		mine(10)
		testkit.AppendShares(t, pool.Log, "BTC", all[from:])
		if err := b.bus.Commit(t.Context(), group, b.topics.Share, map[int]int64{0: int64(len(all))}, ""); err != nil {
			t.Fatal(err)
		}
		mine(10)
		if p == nil {
			p = b.start(t, dir, "sharelogger", fmt.Sprintf("data_dir = %q\nflush_interval = \"100ms\"\nkafka_group_id = %q\n", pool.Log, group))
		} else {
			p.Start()
		}
		logged()
		p.Kill()
		mine(10)
		p.Start()
		logged()
		stop(p)
	}
}

// testStatshttpd wants the last hour of before the start.
func (b *beside) testStatshttpd(t *testing.T) {
	dir := t.TempDir()
	b.writeShares(t, shares(1000, 10))
	addr := testkit.FreeAddr(t)
	b.start(t, dir, "statshttpd", fmt.Sprintf("listen = %q\n[database]\ndsn = %q\n", addr, "sqlite:"+filepath.Join(dir, "pool.db")))
	api := &rig.Pool{HTTP: "http://" + addr}
	testkit.Until(t, testkit.Patience, "the shares are counted", func(ctx context.Context) error {
		var pool struct {
			Shares struct{ Accepted struct{ Shares int } } `json:"shares_1h"`
		}
		if err := api.Get(ctx, "/api/v1/pool", &pool); err != nil {
			return err
		}
		if pool.Shares.Accepted.Shares < 10 {
			return fmt.Errorf("%+v", pool)
		}
		return nil
	})
}

// testBlkmaker has a block found while no blkmaker runs.
func (b *beside) testBlkmaker(t *testing.T) {
	dir := t.TempDir()
	node := rig.StartBtcd(t, dir, rig.PayoutAddress)
	response, err := node.BlockTemplate(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, j := testkit.JobOf(t, job.NewIDs(1), response, nil)
	b.write(t, b.topics.RawGBT, raw.AppendTo(nil))
	b.write(t, b.topics.Job, j.AppendTo(nil))
	b.write(t, b.topics.SolvedShare, testkit.Solve(t, j).AppendTo(nil))
	b.start(t, dir, "blkmaker", fmt.Sprintf("network = \"regtest\"\ndata_dir = %q\n[[nodes]]\nrpc_url = %q\nrpc_user = %q\nrpc_password = %q\n[database]\ndsn = %q\n",
		filepath.Join(dir, "blkmaker"), node.URL, node.User, node.Password, "sqlite:"+filepath.Join(dir, "pool.db")))
	testkit.Until(t, testkit.Patience, "the block is on the chain", func(ctx context.Context) error {
		var height int32
		err := node.Call(ctx, "getblockcount", &height)
		if err == nil && height < j.Height {
			err = fmt.Errorf("height %d", height)
		}
		return err
	})
}
