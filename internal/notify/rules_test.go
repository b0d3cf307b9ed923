package notify

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"btcpool/internal/config"
	"btcpool/internal/telemetry"
)

var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// board is a Notifier that sends nothing, and what is seen.
type board struct {
	*Notifier
	t   *testing.T
	now time.Time
}

func newBoard(t *testing.T, change func(*Config)) *board {
	t.Helper()
	cfg := DefaultConfig()
	cfg.DataDir = t.TempDir()
	cfg.Targets = []Target{{Name: "ops", Kind: Webhook, URL: "https://example.org/hook"}}
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	b := &board{t: t, now: noon}
	b.open(cfg)
	return b
}

func (b *board) open(cfg Config) {
	b.t.Helper()
	n, err := New(cfg, telemetry.Deps{Log: zerolog.Nop()})
	if err != nil {
		b.t.Fatal(err)
	}
	b.Notifier = n
	b.t.Cleanup(func() { _ = n.Close() }) // again() may have
}

// again is the next process.
func (b *board) again(change func(*Config)) {
	b.t.Helper()
	if err := b.Close(); err != nil {
		b.t.Fatal(err)
	}
	cfg := b.cfg
	if change != nil {
		change(&cfg)
	}
	b.open(cfg)
}

// see looks at the same sights each interval, for long, as if each message were taken at once; it returns their texts.
func (b *board) see(long time.Duration, sights func(now time.Time) []Sight) (texts []string) {
	b.t.Helper()
	for end := b.now.Add(long); b.now.Before(end); b.now = b.now.Add(Interval) {
		b.Look(b.now, slices.Values(sights(b.now)))
		texts = append(texts, b.taken()...)
	}
	return texts
}

// taken empties the queue.
func (b *board) taken() (texts []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, q := range slices.Clone(b.state.Queue) {
		texts = append(texts, q.Target+": "+q.Message.Text())
		b.state.drop(q)
	}
	return texts
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func worker(n int, last time.Time) Sight {
	return Sight{Subject{1, int64(n), "alice", fmt.Sprintf("rig%d", n)}, Figures{Last: last.Unix()}}
}

func TestSilence(t *testing.T) {
	t.Parallel()
	b := newBoard(t, nil)
	stopped := noon.Add(20 * time.Minute)
	one := func(last time.Time) func(time.Time) []Sight {
		return func(now time.Time) []Sight {
			if last.IsZero() {
				last = now
			}
			return []Sight{worker(1, last), worker(2, now), worker(3, noon.Add(-48*time.Hour))}
		}
	}
	want(t, b.see(20*time.Minute, func(now time.Time) []Sight {
		return []Sight{worker(1, now), worker(2, now), worker(3, noon.Add(-48*time.Hour))}
	}))
	want(t, b.see(10*time.Minute, one(stopped)))
	want(t, b.see(5*time.Minute, one(stopped)), "ops: alice.rig1 is silent, last share at 2026-03-14 12:20 UTC")
	want(t, b.see(10*time.Hour, one(stopped)))
	working := func(now time.Time) []Sight { return []Sight{worker(1, now), worker(2, now)} }
	want(t, b.see(4*time.Minute, working)) // it has to hold
	want(t, b.see(2*time.Minute, working), "ops: alice.rig1 works again")
	want(t, b.see(2*time.Hour, working))
	if n := len(b.state.conditions); n != 0 {
		t.Errorf("%d conditions are left", n)
	}
}

// What comes and goes within the hold is not told.
func TestDebounce(t *testing.T) {
	t.Parallel()
	b := newBoard(t, nil)
	pool := func(percent uint64) func(time.Time) []Sight {
		return func(time.Time) []Sight { return []Sight{{Figures: Figures{Shares: 1000, Refused: 10 * percent}}} }
	}
	for range 20 {
		want(t, b.see(4*time.Minute, pool(30)))
		want(t, b.see(time.Minute, pool(1)))
		want(t, b.see(4*time.Minute, pool(30)))
		want(t, b.see(time.Minute, pool(8))) // neither good nor bad
	}
	want(t, b.see(6*time.Minute, pool(30)), "ops: many shares of the pool are refused: 30.0 % (300 of 1000 in 15 minutes)")
	for range 20 { // nor is the end told before it has held
		want(t, b.see(4*time.Minute, pool(1)))
		want(t, b.see(time.Minute, pool(11)))
		want(t, b.see(10*time.Minute, pool(8)))
	}
	want(t, b.see(6*time.Minute, pool(5)), "ops: shares of the pool are accepted again: 5.0 % refused")
}

func TestRejectsRestOnShares(t *testing.T) {
	t.Parallel()
	b := newBoard(t, nil)
	want(t, b.see(time.Hour, func(time.Time) []Sight {
		return []Sight{{Figures: Figures{Shares: 49, Refused: 49}}, {Subject{UserID: 1, User: "alice"}, Figures{Shares: 50, Refused: 5}}}
	}))
}

func TestHashrate(t *testing.T) {
	t.Parallel()
	b := newBoard(t, nil)
	user := func(rate, mean, expected float64) func(time.Time) []Sight {
		return func(time.Time) []Sight {
			return []Sight{{Subject{UserID: 1, User: "alice"}, Figures{RateKnown: true, Rate: rate, Mean: mean, Expected: expected}}}
		}
	}
	want(t, b.see(time.Hour, user(51e12, 100e12, 1000)))
	want(t, b.see(time.Hour, user(10e12, 100e12, 49))) // too few shares to say so
	want(t, b.see(6*time.Minute, user(49e12, 100e12, 1000)), "ops: hashrate of alice has fallen to 49.0 TH/s, the mean was 100.0 TH/s")
	want(t, b.see(time.Hour, user(49e12, 60e12, 1000)))                                                                 // the mean falls, too
	want(t, b.see(time.Hour, user(74e12, 100e12, 1000)))                                                                // half of it must be made up
	want(t, b.see(time.Hour, func(time.Time) []Sight { return []Sight{{Subject: Subject{UserID: 1, User: "alice"}}} })) // not known
	want(t, b.see(6*time.Minute, user(75e12, 60e12, 1000)), "ops: hashrate of alice is back at 75.0 TH/s")
	want(t, b.see(10*time.Minute, user(75e12, 80e12, 1000))) // the pause
	want(t, b.see(6*time.Minute, user(0, 80e12, 1000)), "ops: hashrate of alice has fallen to 0.0 H/s, the mean was 80.0 TH/s")
	want(t, b.see(25*time.Hour, user(0, 0, 0)))
	want(t, b.see(6*time.Minute, user(20e12, 0, 0)))
	want(t, b.see(time.Hour, user(20e12, 20e12, 0)), "ops: hashrate of alice is back at 20.0 TH/s") // the new mean counts after a day
}

// Many at once are one message, of bounded size.
func TestManyAreOneMessage(t *testing.T) {
	t.Parallel()
	b := newBoard(t, nil)
	const many = 3_000
	stop := make(map[int]time.Time)
	farm := func(now time.Time) (all []Sight) {
		for i := range many {
			last, stopped := stop[i+1]
			if !stopped {
				last = now
			}
			all = append(all, worker(i+1, last))
		}
		return all
	}
	want(t, b.see(time.Minute, farm))
	for i := range many - 3 {
		stop[i+1] = b.now
	}
	texts := b.see(15*time.Minute, farm)
	if len(texts) != 1 {
		t.Fatalf("%d messages", len(texts))
	}
	if got := len(texts[0]); got > 3000 {
		t.Errorf("a message of %d bytes", got)
	}
	if end := fmt.Sprintf("\nand %d more", many-3-mostItems); !strings.HasSuffix(texts[0], end) {
		t.Errorf("does not end with %q:\n%s", end, texts[0])
	}
}

// What comes in the pause waits for its end, and what is over by then is not told.
func TestPause(t *testing.T) {
	t.Parallel()
	b := newBoard(t, func(c *Config) { c.HoldFor, c.Pause = 0, config.Duration(time.Hour) })
	high := func(users ...int32) func(time.Time) []Sight {
		return func(time.Time) (all []Sight) {
			for id := range int32(5) {
				s := Sight{Subject{UserID: id + 1, User: fmt.Sprintf("user%d", id+1)}, Figures{Shares: 100}}
				if slices.Contains(users, id+1) {
					s.Refused = 50
				}
				all = append(all, s)
			}
			return all
		}
	}
	want(t, b.see(Interval, high(1)), "ops: many shares of user1 are refused: 50.0 % (50 of 100 in 15 minutes)")
	want(t, b.see(30*time.Minute, high(1, 2)))
	want(t, b.see(29*time.Minute, high(3)))
	want(t, b.see(5*time.Minute, high(3, 4)), `ops: many shares of user3 are refused: 50.0 % (50 of 100 in 15 minutes)
many shares of user4 are refused: 50.0 % (50 of 100 in 15 minutes)
shares of user1 are accepted again: 0.0 % refused`)
}

func TestTargets(t *testing.T) {
	t.Parallel()
	b := newBoard(t, func(c *Config) {
		c.HoldFor = 0
		c.Targets = append(c.Targets,
			Target{Name: "alice", Kind: Webhook, URL: "https://example.org/a", Users: []string{"alice"}},
			Target{Name: "blocks", Kind: Webhook, URL: "https://example.org/b", Events: []Event{BlockFound}})
	})
	want(t, b.see(Interval, func(time.Time) []Sight {
		return []Sight{
			{Figures: Figures{Shares: 100, Refused: 20}},
			{Subject{UserID: 1, User: "alice"}, Figures{Shares: 100, Refused: 50}},
			{Subject{2, 7, "bob", "rig"}, Figures{Shares: 100, Refused: 60}},
		}
	}), `ops: many shares of the pool are refused: 20.0 % (20 of 100 in 15 minutes)
many shares of alice are refused: 50.0 % (50 of 100 in 15 minutes)
many shares of bob.rig are refused: 60.0 % (60 of 100 in 15 minutes)`,
		"alice: many shares of alice are refused: 50.0 % (50 of 100 in 15 minutes)")
}

// What there is no room for is counted at each look anew.
func TestUntracked(t *testing.T) {
	t.Parallel()
	b := newBoard(t, func(*Config) {})
	for worker := range int64(mostTracked) {
		b.state.conditions[conditionKey{RejectsHigh, 9, worker + 1}] = &condition{Event: RejectsHigh, Since: noon.Unix(), Turned: noon.Unix()}
	}
	sight := Sight{Subject: Subject{UserID: 1, WorkerID: 1}, Figures: Figures{Shares: 1000, Refused: 900}}
	for range 3 {
		b.Look(noon, slices.Values([]Sight{sight}))
	}
	if b.state.untracked != 1 {
		t.Errorf("%d are not tracked, want 1", b.state.untracked)
	}
}

func TestBlocks(t *testing.T) {
	t.Parallel()
	b := newBoard(t, func(c *Config) {
		c.Pause = 0
		c.Targets = append(c.Targets, Target{Name: "bob", Kind: Webhook, URL: "https://example.org/b", Users: []string{"bob"}})
	})
	block := func(n int32, state string) Block {
		return Block{Hash: fmt.Sprintf("%064x", n), Height: n, User: "alice", Worker: "rig1", RewardSat: 312_500_000 + int64(n), Time: noon, State: state}
	}
	tell := func(blocks ...Block) []string {
		b.now = b.now.Add(Interval)
		slices.Reverse(blocks) // the newest first
		b.Blocks(b.now, blocks)
		return b.taken()
	}
	const zeros = "0000000000000000000000000000000000000000000000000000000000000"
	want(t, tell(block(1, "confirmed"), block(2, "accepted")))                        // is history
	want(t, tell(block(1, "confirmed"), block(2, "accepted"), block(3, "submitted"))) // no node has answered
	want(t, tell(block(1, "confirmed"), block(2, "confirmed"), block(3, "accepted")), //
		"ops: block 2 of alice.rig1 is confirmed: 3.12500002 BTC, "+zeros+"002\n"+"block 3 found by alice.rig1: 3.12500003 BTC, "+zeros+"003")
	want(t, tell(block(2, "confirmed"), block(3, "accepted")))
	want(t, tell(block(2, "confirmed"), block(3, "accepted"), block(6, "accepted"), block(6, "accepted")), // pages have shifted
		"ops: block 6 found by alice.rig1: 3.12500006 BTC, "+zeros+"006")
	want(t, tell(block(2, "confirmed"), block(3, "accepted")))
	b.again(nil)
	want(t, tell(block(2, "confirmed"), block(3, "orphaned"), block(4, "rejected"), block(5, "confirmed")),
		"ops: block 3 of alice.rig1 is orphaned: 3.12500003 BTC, "+zeros+"003\n"+
			"block 4 found by alice.rig1 and rejected: 3.12500004 BTC, "+zeros+"004\n"+
			"block 5 found by alice.rig1 and confirmed: 3.12500005 BTC, "+zeros+"005")
	bobs := block(6, "accepted")
	bobs.User, bobs.Worker = "bob", ""
	want(t, tell(block(5, "confirmed"), bobs), "ops: block 6 found by bob: 3.12500006 BTC, "+zeros+"006", "bob: block 6 found by bob: 3.12500006 BTC, "+zeros+"006")

	// What was found while nobody looked is asked for as far as needed.
	if b.Covered([]Block{block(9, "confirmed"), block(8, "confirmed")}) {
		t.Error("covered without a block that is known")
	}
	if b.Covered([]Block{block(7, "confirmed"), block(5, "confirmed")}) {
		t.Error("covered without block 6, which may change")
	}
	if !b.Covered([]Block{block(7, "confirmed"), bobs, block(5, "confirmed")}) {
		t.Error("not covered")
	}
}

// A new target is told what happens from then on, one that is gone is forgotten.
func TestTargetsChange(t *testing.T) {
	t.Parallel()
	b := newBoard(t, func(c *Config) { c.HoldFor = 0 })
	high := func(time.Time) []Sight { return []Sight{{Figures: Figures{Shares: 100, Refused: 20}}} }
	b.Blocks(b.now, []Block{{Hash: "a", State: "accepted"}})
	want(t, b.see(Interval, high), "ops: many shares of the pool are refused: 20.0 % (20 of 100 in 15 minutes)")
	b.again(func(c *Config) {
		c.Targets = []Target{{Name: "new", Kind: Webhook, URL: "https://example.org/hook"}}
	})
	b.Blocks(b.now, []Block{{Hash: "a", State: "accepted"}})
	want(t, b.see(time.Hour, high))
	want(t, b.see(time.Hour, func(time.Time) []Sight { return []Sight{{Figures: Figures{Shares: 100}}} }), "new: shares of the pool are accepted again: 0.0 % refused")
}

func TestFormatting(t *testing.T) {
	t.Parallel()
	for sat, text := range map[int64]string{312_500_000: "3.125", 1: "0.00000001", 5_000_000_000: "50", 0: "0", 2_100_000_000_000_000: "21000000"} {
		if got := bitcoins(sat); got != text {
			t.Errorf("%d: %s", sat, got)
		}
	}
	for name, text := range map[string]string{
		"rig\r\nBcc: x@example.org": "rig??Bcc: x@example.org",
		"a\u202eb\x00\xff":          "a?b??",
		"рига":                      "рига",
	} {
		if got := clean(name); got != text {
			t.Errorf("%q: %q", name, got)
		}
	}
}
