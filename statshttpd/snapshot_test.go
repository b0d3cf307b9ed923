package statshttpd

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/durable"
	"btcpool/internal/share"
)

// countRandom has s count n shares of a few miners in three partitions, with some delivered twice, late, refused, easy or hard.
func (s *Service) countRandom(t testing.TB, random *rand.Rand, seq map[uint8]uint64, n int, to ...*Service) {
	t.Helper()
	for range n {
		partition := uint8(random.IntN(3))
		id := share.ID{Server: partition + 1, Epoch: 7, Seq: seq[partition]}
		if random.IntN(20) > 0 || id.Seq == 0 {
			seq[partition]++
			id.Seq = seq[partition]
		}
		user := 1 + random.Int32N(5)
		one := share.Share{
			ID: id, JobID: 1, UserID: user, WorkerID: int64(user)<<8 | int64(random.IntN(6)), Status: share.StatusAccept,
			Time: s.now().Add(-time.Duration(random.IntN(40)) * time.Second * time.Duration(random.IntN(2))).Unix(), Difficulty: 3,
			Bits: 0x17023a04, Height: 5, BitsReached: 0x1d00ffff - random.Uint32N(1<<20), IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(user)}),
		}
		switch random.IntN(30) {
		case 0:
			one.Difficulty = 25 // wide rings
		case 1:
			one.Status = share.StatusStale
		case 2:
			one.Status = share.StatusLowDifficulty
		}
		m := bus.Message{Partition: int(partition), Offset: int64(id.Seq), Value: one.AppendTo(nil)}
		for _, to := range append(to, s) {
			if err := to.handleShare(m); err != nil {
				t.Fatal(err)
			}
			to.read[m.Partition] = m.Mark()
		}
	}
}

func (s *Service) snapshotted(t testing.TB) []byte {
	t.Helper()
	frame, err := s.takeCheckpoint()
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// TestSnapshot has figures go on in one service after the other, and wants them to be those of one that counts all: to the
// bit, whatever they are. Shares come for more than the time that rings hold.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 9))
	seq := make(map[uint8]uint64)
	now := noon
	clock := func() time.Time { return now }
	reference, s := newTestService(t, noon), newTestService(t, noon)
	reference.now, s.now = clock, clock
	for range 40 {
		reference.countRandom(t, random, seq, random.IntN(60), s)
		now = now.Add(time.Duration(random.IntN(300)) * time.Second)
		body, _, err := durable.CutFrame(s.snapshotted(t), 1, maxCheckpoint)
		if err != nil {
			t.Fatal(err)
		}
		kept, err := parseSnapshot(body)
		if err != nil {
			t.Fatal(err)
		}
		s = newTestService(t, now)
		s.now = clock
		dedup, err := share.ParseDedup(kept.Dedup)
		if err != nil {
			t.Fatal(err)
		}
		s.dedup, s.read = *dedup, kept.Read
		s.countedSince.Store(kept.CountedSince)
		s.board.restore(kept)
		if got, want := s.snapshotted(t), reference.snapshotted(t); !bytes.Equal(got, want) {
			t.Fatalf("after %v other figures: %d bytes, want %d", now.Sub(noon), len(got), len(want))
		}
	}
	if len(seq) != 3 || s.board.pool.accepted < 500 {
		t.Errorf("%d shares of %v", s.board.pool.accepted, seq)
	}
}

// What the database tells before a checkpoint is read is not lost.
func TestSnapshotAndDatabase(t *testing.T) {
	t.Parallel()
	before, s := newTestService(t, noon), newTestService(t, noon)
	before.countRandom(t, rand.New(rand.NewPCG(1, 1)), make(map[uint8]uint64), 200)
	kept, err := parseSnapshot(before.snapshotted(t)[durable.FrameHead:])
	if err != nil {
		t.Fatal(err)
	}
	k := kept.Workers[0].workerKey
	row := kept.Workers[0].row(k, noon.Unix())
	row.Name, row.FirstShare, row.Best.Bits = "rig", 1000, 0x1700ffff
	s.board.mu.Lock()
	s.board.addKnown(noon, row)
	s.board.mu.Unlock()
	s.board.restore(kept)
	w := s.board.workers[k]
	if w.Name != "rig" || w.first != 1000 || w.best.Bits != 0x1700ffff || w.accepted != kept.Workers[0].accepted || !w.online(noon) {
		t.Errorf("worker is %+v", w)
	}
}

func TestReadCheckpoint(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	s.countRandom(t, rand.New(rand.NewPCG(1, 1)), make(map[uint8]uint64), 200)
	good := s.snapshotted(t)
	sealed := func(body []byte) []byte {
		frame := append(make([]byte, durable.FrameHead), body...)
		durable.SealFrame(frame)
		return frame
	}
	changed := bytes.Clone(good)
	changed[len(changed)/2] ^= 4
	stale := s.origin()
	stale.AcceptStale = true
	tests := []struct {
		name    string
		content []byte
		of      origin
		now     time.Time
		want    error
	}{
		{"good", good, s.origin(), noon.Add(checkpointFor), nil},
		{"empty", nil, s.origin(), noon, damaged},
		{"cut", good[:len(good)-1], s.origin(), noon, damaged},
		{"with more behind it", append(bytes.Clone(good), 0), s.origin(), noon, damaged},
		{"a bit changed", changed, s.origin(), noon, damaged},
		{"something else", []byte("{\"this\": \"is something else\"}"), s.origin(), noon, damaged},
		{"whole, but cut before", sealed(good[durable.FrameHead : len(good)-1]), s.origin(), noon, damaged},
		{"of a later version", sealed([]byte{snapshotVersion + 1}), s.origin(), noon, foreign},
		{"of another topic", good, origin{Topic: "other"}, noon, foreign},
		{"with other options", good, stale, noon, foreign},
		{"of one user", good, origin{Topic: s.origin().Topic, SingleUser: 5}, noon, foreign},
		{"old", good, s.origin(), noon.Add(checkpointFor + 2*time.Second), age},
		{"from the future", good, s.origin(), noon.Add(-maxAhead - 2*time.Second), age},
	}
	path := filepath.Join(t.TempDir(), "checkpoint")
	if kept, err := readCheckpoint(path, s.origin(), noon); kept != nil || err != nil {
		t.Errorf("no file: %v, %v", kept, err)
	}
	for _, test := range tests {
		if err := os.WriteFile(path, test.content, 0o600); err != nil {
			t.Fatal(err)
		}
		kept, err := readCheckpoint(path, test.of, test.now)
		if !errors.Is(err, test.want) || (kept != nil) != (test.want == nil) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}

// Whatever is read as a snapshot can be restored, and is the same when it is taken again.
func FuzzParseSnapshot(f *testing.F) {
	s := newTestService(f, noon)
	f.Add(s.snapshotted(f)[durable.FrameHead:])
	s.countRandom(f, rand.New(rand.NewPCG(1, 1)), make(map[uint8]uint64), 300)
	f.Add(s.snapshotted(f)[durable.FrameHead:])
	f.Fuzz(func(t *testing.T, in []byte) {
		kept, err := parseSnapshot(in)
		if err != nil {
			return
		}
		b := newBoard(1000)
		b.restore(kept)
		again := b.appendSnapshot(nil, kept)
		same, err := parseSnapshot(again)
		if err != nil {
			t.Fatal(err)
		}
		b = newBoard(1000)
		b.restore(same)
		if !bytes.Equal(b.appendSnapshot(nil, same), again) {
			t.Error("not the same when it is taken again")
		}
		now := time.Unix(kept.At, 0)
		b.count(now)
		b.poolView(now, counts{})
		_, _ = b.addShare(now, &share.Share{UserID: 1, WorkerID: 1 << 8, Time: kept.At, Status: share.StatusAccept, Difficulty: 1})
	})
}
