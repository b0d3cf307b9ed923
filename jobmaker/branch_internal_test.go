package jobmaker

import (
	"testing"
	"time"

	"btcpool/internal/bitcoin"
)

// A template on a branch, as tests of branches name it.
type onBranch struct {
	created float64
	height  int32
	block   byte // that the template is on
	work    uint64
	bits    uint32
}

func (o onBranch) candidate() candidate {
	c := newCandidate(o.height, 10, at(o.created))
	c.PrevHash[0], c.work.Lo, c.Bits = o.block, o.work, o.bits
	return c
}

// Templates of several gbtmakers, whose nodes are on different branches: work decides, and bits do where work is not
// told.
func TestScheduleBranches(t *testing.T) {
	t.Parallel()
	const (
		hard, fourth = 0x17021fff, 0x17087ffc // the second is 4 times as easy
		easy         = 0x1a01ffff             // 2^24 times
	)
	type step struct {
		onBranch
		want  result
		job   reason
		left  byte // that the job sends miners back from
		since int32
	}
	for _, tt := range []struct {
		name    string
		network string
		steps   []step
	}{
		{"less work is not followed, however high it is and long nothing else comes", "", []step{
			{onBranch{0, 4011, 'a', 1000, hard}, accepted, newHeight, 0, 0},
			{onBranch{1, 6061, 'x', 500, easy}, lessWork, "", 0, 4010},
			{onBranch{21, 6062, 'y', 501, easy}, lessWork, routine, 0, 4010},
			{onBranch{100_000, 6063, 'z', 502, easy}, lessWork, routine, 0, 4010},
			{onBranch{100_001, 4012, 'b', 1010, hard}, accepted, newHeight, 0, 4010},
			{onBranch{100_200, 4013, 'c', 1020, hard}, accepted, newHeight, 0, 0},
		}},
		{"more work is followed at once, to a lower height, too", "", []step{
			{onBranch{0, 6061, 'x', 500, easy}, accepted, newHeight, 0, 0},
			{onBranch{1, 4011, 'a', 1000, hard}, accepted, moreWork, 'x', 0},
			{onBranch{2, 6062, 'y', 501, easy}, lessWork, "", 0, 4010},
			{onBranch{3, 4012, 'b', 1010, hard}, accepted, newHeight, 0, 4010},
		}},
		{"a rival with more work is gone back to", "testnet4", []step{
			{onBranch{0, 4011, 'a', 1000, hard}, accepted, newHeight, 0, 0},
			{onBranch{1, 4011, 'b', 1100, hard}, accepted, newBranch, 'a', 4010},
			{onBranch{2, 4011, 'a', 1000, hard}, lessWork, "", 0, 4010},
			{onBranch{3, 4011, 'c', 1200, hard}, accepted, newBranch, 'b', 4010},
			{onBranch{4, 4011, 'b', 1300, hard}, accepted, newBranch, 'c', 4010},
		}},
		{"a node that lags behind is not on another branch", "", []step{
			{onBranch{0, 4010, 'a', 990, hard}, accepted, newHeight, 0, 0},
			{onBranch{1, 4011, 'b', 1000, hard}, accepted, newHeight, 0, 0},
			{onBranch{2, 4010, 'a', 990, hard}, lowHeight, "", 0, 0},
			{onBranch{900, 4010, 'a', 990, hard}, lowHeight, routine, 0, 0},
			{onBranch{901, 4010, 'x', 990, hard}, lessWork, "", 0, 4009},
		}},
		{"a split is told with the first height that is seen", "", []step{
			{onBranch{0, 4010, 'a', 990, hard}, accepted, newHeight, 0, 0},
			{onBranch{1, 4011, 'b', 1000, hard}, accepted, newHeight, 0, 0},
			{onBranch{2, 4012, 'c', 1010, hard}, accepted, newHeight, 0, 0},
			{onBranch{3, 4012, 'y', 1009, hard}, lessWork, "", 0, 4011},
			{onBranch{4, 4011, 'x', 999, hard}, lessWork, "", 0, 4010},
			{onBranch{5, 4012, 'z', 1009, hard}, lessWork, "", 0, 4010},
		}},
		{"without work bits that no chain can have come to are refused", "", []step{
			{onBranch{0, 4011, 'a', 0, hard}, accepted, newHeight, 0, 0},
			{onBranch{1, 4012, 'x', 0, fourth}, wrongBits, "", 0, 4010}, // within a period
			{onBranch{2, 6061, 'y', 0, easy}, wrongBits, "", 0, 4010},
			{onBranch{500, 6061, 'y', 0, easy}, wrongBits, routine, 0, 4010},
			{onBranch{501, 4032, 'b', 0, fourth}, accepted, newHeight, 0, 4010}, // in the next one
		}},
		{"bits of more work than the best one's are right", "", []step{
			{onBranch{0, 4011, 'a', 1000, hard}, accepted, newHeight, 0, 0},
			{onBranch{1, 4012, 'x', 1001, fourth}, accepted, newHeight, 0, 0},
		}},
		{"chains on demand may begin anew", "regtest", []step{
			{onBranch{0, 4011, 'a', 1000, hard}, accepted, newHeight, 0, 0},
			{onBranch{1, 11, 'x', 10, hard}, lowHeight, "", 0, 0},
			{onBranch{41, 11, 'x', 10, hard}, accepted, routine, 0, 0},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSchedule()
			if tt.network != "" {
				var err error
				if s.network, err = bitcoin.NetworkByName(tt.network); err != nil {
					t.Fatal(err)
				}
			}
			for i, step := range tt.steps {
				now := at(step.created)
				if got := s.offer(step.candidate(), now); got != step.want {
					t.Fatalf("step %d: template is %s, want %s", i, got, step.want)
				}
				c, why := s.next(now)
				if why != step.job || c.Template != nil && c.left[0] != step.left {
					t.Fatalf("step %d: job for reason %q, left %v, want %q, %v", i, why, c.left, step.job, step.left)
				}
				if got := s.branch.since(now); got != step.since {
					t.Fatalf("step %d: nodes disagree since %d, want %d", i, got, step.since)
				}
				if why != "" {
					s.sent(c, now)
				}
			}
		})
	}
}

// A node that lags behind, or has left the best block, is on no branch of its own.
func TestScheduleOneBranch(t *testing.T) {
	t.Parallel()
	const bits = 0x17021fff
	s := newSchedule()
	left := onBranch{3, 4010, 'x', 985, bits}.candidate()
	left.left[0] = 'b'
	for i, step := range []struct {
		candidate
		want result
	}{
		{onBranch{0, 4010, 'a', 990, bits}.candidate(), accepted},
		{onBranch{1, 4011, 'b', 1000, bits}.candidate(), accepted},
		{onBranch{2, 4010, 'a', 990, bits}.candidate(), lowHeight},
		{left, accepted},
	} {
		if got := s.offer(step.candidate, at(float64(i))); got != step.want {
			t.Fatalf("step %d: template is %s, want %s", i, got, step.want)
		}
		if s.branch.since(at(float64(i))) != 0 || !s.branch.lighter.IsZero() {
			t.Errorf("step %d: nodes are on two branches: %+v", i, s.branch)
		}
	}
}

// Another pool's word does not hide which branch is ours.
func TestScheduleBranchesAndOtherPool(t *testing.T) {
	t.Parallel()
	s := newSchedule()
	s.offer(onBranch{0, 4011, 'a', 1000, 0x17021fff}.candidate(), at(0))
	said := newCandidate(4012, 0, at(1))
	said.PrevHash[0], said.fromPool, said.Bits = 'b', true, 0x17021fff
	if got := s.offer(said, at(1)); got != accepted {
		t.Fatal(got)
	}
	if got := s.offer(onBranch{2, 6061, 'x', 500, 0x17021fff}.candidate(), at(2)); got != lessWork {
		t.Errorf("less work than our own nodes': %s", got)
	}
	if got := s.offer(onBranch{3, 4000, 'c', 2000, 0x17021fff}.candidate(), at(3)); got != accepted {
		t.Errorf("more work: %s", got)
	}
	if c, _ := s.next(at(3)); c.Height != 4000 {
		t.Errorf("job of height %d", c.Height)
	}
}

func TestBranchForgets(t *testing.T) {
	t.Parallel()
	var b branch
	for height := range int32(2 * branchLength) {
		b.follow(onBranch{0, height + 1, byte(height), 1, 0}.candidate())
	}
	if len(b.blocks) != branchLength {
		t.Errorf("%d blocks", len(b.blocks))
	}
	b.part(10, at(0))
	if b.since(at(0)) != 10 || b.since(at(0).Add(partedFor)) != 0 {
		t.Error("when nodes count as disagreeing")
	}
	b.part(20, at(0).Add(partedFor-time.Second))
	if got := b.since(at(0).Add(partedFor)); got != 10 {
		t.Errorf("since %d while they still do", got)
	}
}
