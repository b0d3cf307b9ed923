package miner_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/miner"
	"btcpool/internal/miner/pooltest"
	"btcpool/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mine runs a miner on the pool until it has its shares, or until the test's time is over.
func mine(t *testing.T, pool *pooltest.Pool, cfg miner.Config) (miner.Report, error) {
	t.Helper()
	cfg.URL, cfg.Backoff = "stratum+tcp://"+pool.Addr(), time.Millisecond
	if cfg.User == "" {
		cfg.User = "user.worker"
	}
	m, err := miner.New(cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	err = m.Run(t.Context())
	return m.Report(), err
}

func TestSharesAreAccepted(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		pool *pooltest.Pool
		cfg  miner.Config
	}{
		"one connection":         {pool: &pooltest.Pool{}, cfg: miner.Config{Shares: 50}},
		"one thread":             {pool: &pooltest.Pool{}, cfg: miner.Config{Shares: 50, Threads: 1}},
		"many connections":       {pool: &pooltest.Pool{}, cfg: miner.Config{Shares: 200, Conns: 40, Ramp: 20 * time.Millisecond, User: "u.%d"}},
		"at a rate":              {pool: &pooltest.Pool{}, cfg: miner.Config{Shares: 100, Conns: 10, Rate: 50}},
		"version rolling":        {pool: &pooltest.Pool{VersionMask: 0x1fffe000}, cfg: miner.Config{Shares: 50, VersionMask: 0xffffffff}},
		"narrow version mask":    {pool: &pooltest.Pool{VersionMask: 0x00006000}, cfg: miner.Config{Shares: 50, VersionMask: 0x1fffe000}},
		"version rolling denied": {pool: &pooltest.Pool{}, cfg: miner.Config{Shares: 50, VersionMask: 0x1fffe000}},
		"ids as strings":         {pool: &pooltest.Pool{StringIDs: true}, cfg: miner.Config{Shares: 50}},
		"extranonce2 of 1 byte":  {pool: &pooltest.Pool{Extranonce2Size: 1}, cfg: miner.Config{Shares: 600}},
		"extranonce2 of 12":      {pool: &pooltest.Pool{Extranonce2Size: 12}, cfg: miner.Config{Shares: 50}},
		"odd difficulty":         {pool: &pooltest.Pool{Difficulty: "3.7e-7"}, cfg: miner.Config{Shares: 20}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			acked := make(map[pooltest.Share]int)
			test.cfg.OnShare = func(r miner.Result) {
				if r.Outcome != miner.Accepted {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				acked[pooltest.Share{
					Extranonce1: r.Extranonce1, User: r.User, JobID: string(r.JobID), Extranonce2: r.ExtraNonce2,
					Time: r.Time, Nonce: r.Nonce, VersionBits: r.VersionBits,
				}]++
			}
			pool := test.pool.Start(t)
			report, err := mine(t, pool, test.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if report.Accepted < test.cfg.Shares || report.Rejected != 0 || report.Unanswered != 0 {
				t.Errorf("accepted %d, rejected %v, unanswered %d", report.Accepted, report.RejectedBy, report.Unanswered)
			}
			want := make(map[pooltest.Share]int)
			for _, s := range pool.Accepted() {
				want[s]++
			}
			if diff := cmp.Diff(want, acked); diff != "" {
				t.Errorf("shares the pool accepted (-) and the miner was told of (+):\n%s", diff)
			}
		})
	}
}

func TestInvalidSharesAreMadeAndCounted(t *testing.T) {
	t.Parallel()
	tests := []struct {
		fault    miner.Fault
		want     []string // code and text of every rejection
		accepted bool     // there are valid shares too
	}{
		{miner.LowDifficulty, []string{"23 Low difficulty"}, false},
		{miner.Duplicate, []string{"22 Duplicate share"}, true},
		{miner.BadJob, []string{"21 Job not found"}, false},
		{miner.BadTime, []string{"32 Time too new"}, false},
		{miner.Malformed, []string{"20 Unknown method", "27 Illegal params"}, false},
	}
	for _, test := range tests {
		t.Run(test.fault.String(), func(t *testing.T) {
			t.Parallel()
			pool := (&pooltest.Pool{}).Start(t)
			ctx, enough := context.WithCancel(t.Context())
			var mu sync.Mutex
			rejected := 0
			m, err := miner.New(miner.Config{
				URL: pool.Addr(), User: "u", Rate: 500, Invalid: test.fault,
				OnShare: func(r miner.Result) {
					mu.Lock()
					defer mu.Unlock()
					if r.Outcome == miner.Rejected {
						if rejected++; rejected == 30 {
							enough()
						}
					}
				},
			}, zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Run(ctx); err != nil {
				t.Fatal(err)
			}
			r := m.Report()
			got := map[string]bool{}
			for _, c := range r.RejectedBy {
				got[fmt.Sprintf("%d %s", c.Code, c.Text)] = true
			}
			want := map[string]bool{}
			for _, w := range test.want {
				want[w] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("rejections (-want +got):\n%s", diff)
			}
			if (r.Accepted > 0) != test.accepted || r.InvalidAccepted != 0 || r.Unanswered != 0 || len(r.Failures) != 0 {
				t.Errorf("accepted %d, invalid accepted %d, unanswered %d, failures %v", r.Accepted, r.InvalidAccepted, r.Unanswered, r.Failures)
			}
		})
	}
}

// A pool that hangs up on an oversized line leaves a share unanswered and gets a new connection; valid shares go on.
func TestMixedFaultsAndReconnect(t *testing.T) {
	t.Parallel()
	pool := (&pooltest.Pool{}).Start(t)
	r, err := mine(t, pool, miner.Config{Conns: 3, Rate: 500, Invalid: miner.Mixed, Shares: 60, Reconnect: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.Reconnects == 0 || r.InvalidAccepted != 0 || len(r.RejectedBy) < 5 || r.Unanswered == 0 {
		t.Errorf("report: %+v", r)
	}
}

func TestUnansweredIsNeverAccepted(t *testing.T) {
	t.Parallel()
	submits := make(chan struct{}, 4096)
	pool := (&pooltest.Pool{Handle: func(c *pooltest.Conn, req pooltest.Request) bool {
		if req.Method != "mining.submit" {
			return false
		}
		submits <- struct{}{}
		return true // silence
	}}).Start(t)
	ctx, cancel := context.WithCancel(t.Context())
	var unanswered int
	m, err := miner.New(miner.Config{URL: pool.Addr(), User: "u", Rate: 100, OnShare: func(r miner.Result) {
		if r.Outcome != miner.Unanswered {
			t.Errorf("outcome %v", r.Outcome)
		}
		unanswered++
	}}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	for range 5 {
		<-submits
	}
	cancel()
	pool.Kick() // else the miner waits some seconds for the answers
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r := m.Report()
	if r.Accepted != 0 || r.Rejected != 0 || r.Unanswered < 5 || r.Unanswered != int64(unanswered) || r.Latency.Submit.Count != 0 {
		t.Errorf("told of %d, report %+v", unanswered, r)
	}
}

func TestSilentPoolGetsNoMoreShares(t *testing.T) {
	t.Parallel()
	const bound = 256
	submits := 0
	ctx, cancel := context.WithCancel(t.Context())
	pool := &pooltest.Pool{Difficulty: "1e-9"}
	pool.Handle = func(c *pooltest.Conn, req pooltest.Request) bool {
		switch req.Method {
		case "":
			// The answer to the ping below. Shares that were held back wrongly come before it.
			cancel()
			c.Close()
		case "mining.submit":
			if submits++; submits == bound {
				c.Send(`{"id":1,"method":"mining.ping","params":[]}`)
			}
		default:
			return false
		}
		return true
	}
	pool.Start(t)
	m, err := miner.New(miner.Config{URL: pool.Addr(), User: "u"}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if r := m.Report(); r.Unanswered != bound || r.Accepted != 0 || submits != bound {
		t.Errorf("pool got %d shares, report %+v", submits, r)
	}
}

// Answers other than the result true are no acceptance, whatever else they say.
func TestOnlyTrueIsAcceptance(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{
		`"result":false,"error":null`, `"result":null,"error":null`, `"result":1`, `"result":"true"`, `"error":null`,
		`"result":true,"error":[23,"Low difficulty",null]`, `"result":true,"error":{"code":23,"message":"Low difficulty"}`,
		`"result":true,"error":"no"`,
	} {
		t.Run(answer, func(t *testing.T) {
			t.Parallel()
			pool := (&pooltest.Pool{Handle: func(c *pooltest.Conn, req pooltest.Request) bool {
				if req.Method != "mining.submit" {
					return false
				}
				c.Send(`{"id":` + string(req.ID) + `,` + answer + `}`)
				return true
			}}).Start(t)
			ctx, cancel := context.WithCancel(t.Context())
			m, err := miner.New(miner.Config{URL: pool.Addr(), User: "u", OnShare: func(miner.Result) { cancel() }}, zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Run(ctx); err != nil {
				t.Fatal(err)
			}
			if r := m.Report(); r.Accepted != 0 || r.Rejected == 0 {
				t.Errorf("accepted %d, rejected %d", r.Accepted, r.Rejected)
			}
		})
	}
}

func TestReconnectAfterKick(t *testing.T) {
	t.Parallel()
	var submits atomic.Int64
	pool := &pooltest.Pool{}
	pool.Handle = func(c *pooltest.Conn, req pooltest.Request) bool {
		if req.Method == "mining.submit" {
			if submits.Add(1) == 20 {
				c.Close()
				return true
			}
		}
		return false
	}
	pool.Start(t)
	r, err := mine(t, pool, miner.Config{Reconnect: true, Shares: 60})
	if err != nil {
		t.Fatal(err)
	}
	if r.Authorized != 2 || r.Reconnects != 1 || r.Unanswered == 0 || r.Accepted < 60 {
		t.Errorf("report: %+v", r)
	}
}

func TestRunReconnectsAlways(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var sessions atomic.Int64
	pool := (&pooltest.Pool{Handle: func(c *pooltest.Conn, req pooltest.Request) bool {
		if req.Method == "mining.subscribe" {
			if sessions.Add(1) == 3 {
				cancel()
			}
			c.Close()
		}
		return false
	}}).Start(t)
	cfg := miner.Config{URL: pool.Addr(), User: "u", Backoff: time.Millisecond}
	if err := miner.Run(ctx, cfg, zerolog.Nop()); err != nil {
		t.Error(err)
	}
}

func TestRunStopsAfterItsShares(t *testing.T) {
	t.Parallel()
	pool := (&pooltest.Pool{}).Start(t)
	if err := miner.Run(t.Context(), miner.Config{URL: pool.Addr(), User: "u", Shares: 5}, zerolog.Nop()); err != nil {
		t.Error(err)
	}
	if err := miner.Run(t.Context(), miner.Config{}, zerolog.Nop()); err == nil {
		t.Error("no error for an empty configuration")
	}
}

// The first job is out of reach of the test, so that shares come only if the search for it is given up.
func TestNewJobIsTakenAtOnce(t *testing.T) {
	t.Parallel()
	pool := &pooltest.Pool{Difficulty: "1e-7"}
	pool.Handle = func(c *pooltest.Conn, req pooltest.Request) bool {
		if req.Method == "mining.authorize" {
			c.Reply(req, "true", "null")
			c.Send(`{"id":null,"method":"mining.set_difficulty","params":[1e12]}`)
			c.Notify()
			c.Send(`{"id":null,"method":"mining.set_difficulty","params":[1e-7]}`)
			c.Notify()
			return true
		}
		return false
	}
	pool.Start(t)
	r, err := mine(t, pool, miner.Config{Shares: 10})
	if err != nil || r.Rejected != 0 {
		t.Errorf("error %v, rejected %v", err, r.RejectedBy)
	}
}

func TestNotifySpread(t *testing.T) {
	t.Parallel()
	const conns = 8
	pool := &pooltest.Pool{}
	var mu sync.Mutex
	ready := 0
	allReady := make(chan struct{})
	pool.Handle = func(c *pooltest.Conn, req pooltest.Request) bool {
		if req.Method == "mining.submit" {
			mu.Lock()
			defer mu.Unlock()
			if ready++; ready == 20*conns {
				close(allReady)
			}
		}
		return false
	}
	pool.Start(t)
	m, err := miner.New(miner.Config{URL: pool.Addr(), User: "u", Conns: conns, Rate: 50}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, m.Run)
	<-allReady
	before := m.Report().Latency.Notify.Count
	pool.Broadcast()
	pool.Broadcast()
	testkit.Eventually(t, "notifications are counted", func() bool { return m.Report().Latency.Notify.Count >= before+2*conns })
}

func TestRateIsThatOfEachConnection(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ conns, threads int }{{1, 1}, {1, 4}, {2, 3}, {5, 2}} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			t.Parallel()
			const rate = 50
			pool := (&pooltest.Pool{}).Start(t)
			r, err := mine(t, pool, miner.Config{Conns: test.conns, Threads: test.threads, Rate: rate, Shares: 40})
			if err != nil {
				t.Fatal(err)
			}
			due := rate*float64(test.conns)*r.Seconds + float64(test.conns) // the first is due at the start
			if float64(r.Submitted) > due {
				t.Errorf("%d shares in %.3f s, at most %.1f are due", r.Submitted, r.Seconds, due)
			}
		})
	}
}

func TestRateOutOfReachIsSaid(t *testing.T) {
	t.Parallel()
	pool := (&pooltest.Pool{Difficulty: "1000"}).Start(t)
	m, err := miner.New(miner.Config{URL: pool.Addr(), User: "u", Conns: 3, Rate: 10}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, m.Run)
	testkit.Eventually(t, "it is said", func() bool { return strings.Contains(m.Report().Problem, "out of reach") })
}

func TestConfigFaults(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		cfg  miner.Config
		want []string
	}{
		"scheme":     {miner.Config{URL: "http://h:1", User: "u"}, []string{"scheme"}},
		"no port":    {miner.Config{URL: "stratum+tcp://h", User: "u"}, []string{"host:port"}},
		"no host":    {miner.Config{URL: ":3333", User: "u"}, []string{"host:port"}},
		"port":       {miner.Config{URL: "h:99999", User: "u"}, []string{"host:port"}},
		"all wrong":  {miner.Config{Conns: -1, Rate: -2, Shares: -3, Threads: -4}, []string{"url", "user", "conns", "rate", "shares", "threads"}},
		"no rate":    {miner.Config{URL: "h:1", User: "u", Invalid: miner.BadJob}, []string{"need a rate"}},
		"everything": {miner.Config{URL: "stratum+tcp://h:3333", User: "u"}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := test.cfg.Validate()
			if (err == nil) != (test.want == nil) {
				t.Fatalf("error %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not about %s", err, want)
				}
			}
		})
	}
}

func TestNoConnection(t *testing.T) {
	t.Parallel()
	pool := (&pooltest.Pool{Handle: func(c *pooltest.Conn, req pooltest.Request) bool {
		if req.Method != "mining.authorize" {
			return false
		}
		c.Reply(req, "null", `[24,"Unauthorized worker",null]`)
		return true
	}}).Start(t)
	r, err := mine(t, pool, miner.Config{Conns: 2})
	if err == nil || !strings.Contains(err.Error(), "mining.authorize refused: 24 Unauthorized worker") || r.Authorized != 0 {
		t.Errorf("error %v, report %+v", err, r)
	}
	if diff := cmp.Diff([]miner.FailureCount{{Text: err.Error(), Count: 2}}, r.Failures); diff != "" {
		t.Error(diff)
	}
	if redirect := (*miner.RedirectError)(nil); errors.As(err, &redirect) {
		t.Error("a refusal is no redirect")
	}
}
