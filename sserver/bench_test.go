package sserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/share"
	v1 "btcpool/internal/stratum/v1"
	"btcpool/internal/testkit"
	"btcpool/internal/users"
)

// benchService is a server that does not run: its parts are used one by one.
func benchService(b *testing.B) *Service {
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.DataDir = b.TempDir()
	cfg.LoginTimeout = config.Duration(time.Hour) // not what is measured
	cfg.Users.Kind = users.Static
	cfg.Users.Static = map[string]int32{"alice": 7}
	s, err := New(cfg, service.Deps{Log: zerolog.Nop()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

var jobIDs = job.NewIDs(1)

// benchJob has 12 branches and a coinbase of 250 bytes.
func benchJob(prev byte) *job.StratumJob {
	return &job.StratumJob{
		ID:           jobIDs.Next(time.Now()),
		PrevHash:     chainhash.Hash{prev},
		Height:       100,
		Coinbase1:    bytes.Repeat([]byte{0x11}, 60),
		Coinbase2:    bytes.Repeat([]byte{0x22}, 250-60-job.ExtranonceSize),
		MerkleBranch: make([]chainhash.Hash, 12),
		Version:      0x20000000,
		Bits:         0x1703a30c,
		Time:         uint32(time.Now().Unix()),
	}
}

// benchSession is authorized and has a job.
func benchSession(b *testing.B, s *Service) stratumV1 {
	if _, err := s.chains[0].jobs.add(benchJob(1), merged{}, time.Now()); err != nil {
		b.Fatal(err)
	}
	p, l := s.ports[0], s.loops[0]
	l.now = time.Now()
	session := &session{srv: s, port: p, loop: l, state: state{
		Phase: authorized, ID: 0x01000001, Workers: []worker{{UserName: "alice", UserID: 7, Name: "rig", ID: 1}},
		VersionMask: s.versionMask, V1: v1.State{ExtraNonce2Size: job.Extranonce2Size}, Ready: true,
		Miner: miner{Difficulty: p.vardiff.Start(p.difficulty, p.vardiff.Min, l.now)},
	}}
	session.protocol = stratumV1{session}
	session.update(nil)
	return stratumV1{session}
}

// A share's hash and everything that is checked of it.
func BenchmarkValidation(b *testing.B) {
	s := benchService(b)
	c := benchSession(b, s)
	w := s.chains[0].jobs.newest()
	var sc scratch
	_, difficulty, _ := c.sentJob(0, &c.Miner)
	sub := &submission{chain: s.chains[0], miner: &c.Miner, worker: &c.Workers[0], Submission: v1.Submission{Time: w.Time, VersionBits: 0x2000, Rolled: true}}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		sub.Nonce++
		if status, _ := c.check(w, difficulty, sub, now, &sc); status != share.StatusLowDifficulty {
			b.Fatal(status)
		}
	}
}

// The limit of BenchmarkValidation: what SHA-256 itself takes for it.
func Benchmark45Compressions(b *testing.B) {
	h := sha256.New()
	data := make([]byte, 45*sha256.BlockSize)
	b.ReportAllocs()
	for b.Loop() {
		h.Reset()
		h.Write(data)
	}
}

// nowhere is a topic that forgets.
type nowhere struct{}

func (nowhere) Partitions(context.Context) (int, error) { return 1, nil }

func (nowhere) Write(context.Context, int, ...bus.Message) error { return nil }

// From a line to its answer for an accepted share, which is in the spool then but not yet waited for.
func BenchmarkSubmitLine(b *testing.B) {
	s := benchService(b)
	p := s.ports[0]
	p.difficulty, p.vardiff.Min, p.vardiff.Max = -32, -32, -32
	testkit.Run(b, func(ctx context.Context) error { return s.chains[0].shares.Run(ctx, nowhere{}) })
	c := benchSession(b, s)
	w := s.chains[0].jobs.newest()
	line := fmt.Appendf(nil, `{"params": ["alice.rig", "0", "0000000000000000", "%08x", "00000000", "00002000"], "id": 1011, "method": "mining.submit"}`+"\n", w.Time)
	nonce := line[bytes.Index(line, []byte(`"00000000", "00002000"`))+1:][:8]
	const digits = "0123456789abcdef"
	sc := &c.loop.sc
	n := uint32(0)
	accepted := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		for i := range nonce {
			nonce[i] = digits[n>>(28-4*i)&15]
		}
		out, _, err := c.handle(sc.out[:0], line)
		if err != nil {
			b.Fatal(err)
		}
		sc.out = out
		if bytes.Contains(sc.out, []byte("true")) {
			accepted++
		}
	}
	if accepted < int(n)*9/10 { // a hash in 65536 misses even this difficulty
		b.Fatalf("%d of %d accepted: %s", accepted, n, sc.out)
	}
}

const benchSockets = 1000

// benchMiners connects miners that read everything.
func benchMiners(b *testing.B, s *Service) {
	if _, err := s.chains[0].jobs.add(benchJob(1), merged{}, time.Now()); err != nil {
		b.Fatal(err)
	}
	var loops errgroup.Group
	for _, l := range s.loops {
		loops.Go(l.run)
	}
	var readers sync.WaitGroup
	b.Cleanup(func() {
		if err := s.hangUp(&loops); err != nil {
			b.Error(err)
		}
		readers.Wait()
	})
	for i := range benchSockets {
		miner, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		conn, ip, err := s.ports[0].Accept()
		if err != nil {
			b.Fatal(err)
		}
		s.welcome(s.ports[0], conn, ip, s.loops[i%len(s.loops)])
		if _, err := io.WriteString(miner, `{"id":1,"method":"mining.subscribe"}`+"\n"+`{"id":1,"method":"mining.authorize","params":["alice.x"]}`+"\n"); err != nil {
			b.Fatal(err)
		}
		first := make([]byte, 1<<16)
		for got := 0; !bytes.Contains(first[:got], []byte("mining.notify\",\"params")); {
			n, err := miner.Read(first[got:])
			if err != nil {
				b.Fatal(err)
			}
			got += n
		}
		readers.Go(func() {
			_, _ = io.Copy(io.Discard, miner)
			miner.Close()
		})
	}
}

// A job to 1,000 miners.
func BenchmarkBroadcast(b *testing.B) {
	s := benchService(b)
	benchMiners(b, s)
	prev := byte(1)
	b.ReportAllocs()
	for b.Loop() {
		prev++
		if sent, err := s.chains[0].jobs.add(benchJob(prev), merged{}, time.Now()); err != nil || !sent {
			b.Fatal(sent, err)
		}
		tellAll(s)
	}
}

// tellAll has all miners hear of the latest round.
func tellAll(s *Service) {
	var told sync.WaitGroup
	s.onLoops((*loop).newRound)
	for _, l := range s.loops {
		told.Add(1)
		var look func()
		look = func() {
			if l.toTell == 0 {
				told.Done()
			} else {
				l.Post(look)
			}
		}
		l.Post(look)
	}
	told.Wait()
}
