//go:build integration

package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/config"
	"btcpool/internal/registry"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

const (
	lockPath = "/locks/test"
	leadPath = "/locks/lead"
)

// session is how long ZooKeeper waits for its clients here: as long as the servers that the tests start allow. What its
// holders do in time, they do within parts of it, also on a busy machine.
const session = 10 * time.Second

// leaser is a call of Lease.
type leaser struct {
	id   chan uint8    // what it got
	lost chan struct{} // closed when the context of run ended
	stop func() error  // ends it and returns its result
}

func registryAt(t *testing.T, addr string, change func(*registry.Config)) *registry.Registry {
	t.Helper()
	return registryWith(t, addr, nil, change)
}

func registryWith(t *testing.T, addr string, metrics prometheus.Registerer, change func(*registry.Config)) *registry.Registry {
	t.Helper()
	cfg := registry.DefaultConfig()
	cfg.Servers = []string{addr}
	cfg.SessionTimeout = config.Duration(session)
	if change != nil {
		change(&cfg)
	}
	log := zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.InfoLevel).With().Timestamp().Logger()
	r, err := registry.New(cfg, service.Deps{Log: log, Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// lease asks for an id and holds it until it is stopped or has lost it.
func lease(t *testing.T, r *registry.Registry) *leaser {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &leaser{id: make(chan uint8, 1), lost: make(chan struct{})}
	result := make(chan error, 1)
	go func() {
		result <- r.Lease(ctx, lockPath, 0, func(ctx context.Context, held registry.Lease) error {
			l.id <- held.ID
			<-ctx.Done()
			close(l.lost)
			return nil
		})
	}()
	l.stop = sync.OnceValue(func() error {
		cancel()
		return <-result
	})
	t.Cleanup(func() { _ = l.stop() })
	return l
}

// wants waits until the leaser has its id, and fails if it is another than want.
func (l *leaser) wants(t *testing.T, want uint8) {
	t.Helper()
	select {
	case got := <-l.id:
		if got != want {
			t.Fatalf("got id %d, want %d", got, want)
		}
	case <-time.After(testkit.Patience):
		t.Fatal("no id")
	}
}

// holds fails if the id is lost.
func (l *leaser) holds(t *testing.T) {
	t.Helper()
	select {
	case <-l.lost:
		t.Fatal("lost its id")
	default:
	}
}

func observer(t *testing.T, addr string) *zk.Conn {
	t.Helper()
	conn, _, err := zk.Connect([]string{addr}, 10*time.Second, zk.WithLogInfo(false))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// waitFor waits until there are nodes under path whose names begin with those given, and no others.
func waitFor(t *testing.T, conn *zk.Conn, path string, want ...string) {
	t.Helper()
	testkit.Until(t, testkit.Patience, path+" has the nodes it should", func(context.Context) error {
		names, _, err := conn.Children(path)
		if err != nil {
			return err
		}
		for i, name := range names {
			names[i], _, _ = strings.Cut(name, "-")
		}
		slices.Sort(names)
		if diff := cmp.Diff(want, names, cmpopts.EquateEmpty()); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

// TestRegistryIDs leases the lowest free ids beside nodes of others.
func TestRegistryIDs(t *testing.T) {
	t.Parallel()
	z := rig.StartZooKeeper(t, t.TempDir())
	conn := observer(t, z.Addr)
	for _, node := range []struct {
		path string
		data string
	}{
		{"/locks", ""},
		{lockPath, "{"},
		{lockPath + "/2", strings.Repeat("\xff", 64<<10)}, // somebody's, and not even ephemeral
		{lockPath + "/garbage", "\x00"},
		{lockPath + "/007", "null"},
		{lockPath + "/lock-", "[]"},
	} {
		if _, err := conn.Create(node.path, []byte(node.data), 0, zk.WorldACL(zk.PermAll)); err != nil {
			t.Fatal(err)
		}
	}
	r := registryAt(t, z.Addr, nil)
	first := lease(t, r)
	first.wants(t, 1)
	second := lease(t, r)
	second.wants(t, 3)

	var content struct {
		UUID      string `json:"uuid"`
		CreatedAt string `json:"created_at"`
		Host      struct{ Hostname, IP string }
		Data      struct{ PID int }
	}
	data, stat, err := conn.Get(lockPath + "/1")
	if err == nil {
		err = json.Unmarshal(data, &content)
	}
	if err != nil {
		t.Fatalf("node of id 1: %v, %q", err, data)
	}
	if stat.EphemeralOwner == 0 || len(content.UUID) != 36 || content.Host.IP != "127.0.0.1" || content.Data.PID != os.Getpid() {
		t.Errorf("node of id 1: owner %x, %s", stat.EphemeralOwner, data)
	}

	// Somebody writes into the node: harmless. Somebody has it: lost.
	if _, err := conn.Set(lockPath+"/3", []byte("scribble"), -1); err != nil {
		t.Fatal(err)
	}
	if err := first.stop(); err != nil {
		t.Errorf("first: %v", err)
	}
	third := lease(t, r)
	third.wants(t, 1)
	testkit.Until(t, testkit.Patience, "the holder has written over the scribble", func(context.Context) error {
		data, _, err := conn.Get(lockPath + "/3")
		if err == nil && string(data) == "scribble" {
			err = errors.New("still there")
		}
		return err
	})
	second.holds(t)
	_, err = conn.Multi(&zk.DeleteRequest{Path: lockPath + "/3", Version: -1},
		&zk.CreateRequest{Path: lockPath + "/3", Acl: zk.WorldACL(zk.PermAll), Flags: zk.FlagEphemeral})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-second.lost:
	case <-time.After(testkit.Patience):
		t.Fatal("does not notice that another has its id")
	}
	if err := second.stop(); !errors.Is(err, registry.ErrLost) {
		t.Errorf("second: %v, want ErrLost", err)
	}
	if data, _, err := conn.Get(lockPath + "/3"); err != nil || len(data) != 0 {
		t.Errorf("the new holder's node: %v, %q", err, data)
	}
	third.holds(t)
}

// TestRegistryZooKeeperAway kills ZooKeeper for longer than a session lasts.
func TestRegistryZooKeeperAway(t *testing.T) {
	t.Parallel()
	z := rig.StartZooKeeper(t, t.TempDir())
	r := registryAt(t, z.Addr, nil)
	first := lease(t, r)
	first.wants(t, 1)
	leads := make(chan struct{}, 8)
	leadCtx, stopLeading := context.WithCancel(context.Background())
	led := make(chan error, 1)
	var lost atomic.Bool
	go func() {
		led <- r.Lead(leadCtx, leadPath, func(ctx context.Context) error {
			leads <- struct{}{}
			<-ctx.Done()
			if leadCtx.Err() == nil {
				lost.Store(true)
			}
			return ctx.Err()
		})
	}()
	<-leads

	z.Kill()
	second := lease(t, r) // waits
	time.Sleep(session + time.Second)
	first.holds(t)
	select {
	case id := <-second.id:
		t.Fatalf("got id %d from nobody", id)
	default:
	}
	if lost.Load() {
		t.Error("the leader lost its lead while ZooKeeper was away for everybody")
	}
	// A server that starts takes connections before it answers. That is silence, which an id outlives by most of a
	// session, and the lead, on a busy machine, may not.
	z.Start()
	second.wants(t, 2)
	first.holds(t)
	stopLeading()
	if err := <-led; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Lead: %v", err)
	}
	if err := first.stop(); err != nil {
		t.Errorf("first: %v", err)
	}
	lease(t, r).wants(t, 1)
}

// TestRegistryPartition cuts a holder off from a ZooKeeper that others reach.
func TestRegistryPartition(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		keep     bool // KeepWhenSilent
		taken    bool // another takes the id meanwhile
		wantLost bool
	}{
		"stops in time":               {false, true, true},
		"keeps an id that is free":    {true, false, false},
		"notices that its id is gone": {true, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			z := rig.StartZooKeeper(t, t.TempDir())
			line := newLine(t, z.Addr)
			conn := observer(t, z.Addr)
			metrics := prometheus.NewRegistry()
			cutOff := lease(t, registryWith(t, line.addr(), metrics, func(c *registry.Config) { c.KeepWhenSilent = tc.keep }))
			cutOff.wants(t, 1)
			line.cut()
			cut := time.Now()
			if !tc.keep {
				select {
				case <-cutOff.lost:
					t.Logf("stopped %v after the cut", time.Since(cut))
				case <-time.After(session):
					t.Fatal("goes on for longer than its session lives")
				}
				if there, _, err := conn.Exists(lockPath + "/1"); err != nil || !there {
					t.Fatalf("its node was gone before it stopped: %v", err)
				}
			}
			waitFor(t, conn, lockPath) // its session has expired
			var other *leaser
			if tc.taken {
				other = lease(t, registryAt(t, z.Addr, nil))
				other.wants(t, 1)
			}
			line.mend()
			if tc.wantLost {
				select {
				case <-cutOff.lost:
				case <-time.After(testkit.Patience):
					t.Fatal("does not notice that another has its id")
				}
				if err := cutOff.stop(); !errors.Is(err, registry.ErrLost) {
					t.Errorf("%v, want ErrLost", err)
				}
				other.holds(t)
				checkMetrics(t, metrics, 0, 1)
				return
			}
			waitFor(t, conn, lockPath, "1")
			cutOff.holds(t)
			checkMetrics(t, metrics, 1, 0)
		})
	}
}

func checkMetrics(t *testing.T, metrics prometheus.Gatherer, id, losses int) {
	t.Helper()
	for name, want := range map[string]int{"btcpool_registry_id": id, "btcpool_registry_losses_total": losses} {
		if got := testkit.Metric(t, metrics, name); got != float64(want) {
			t.Errorf("%s is %v, want %d", name, got, want)
		}
	}
}

// TestRegistryKilled kills processes that hold an id and the lead.
func TestRegistryKilled(t *testing.T) {
	t.Parallel()
	z := rig.StartZooKeeper(t, t.TempDir())
	r, conn := registryAt(t, z.Addr, nil), observer(t, z.Addr)

	holder := startHolder(t, "lease", z.Addr)
	holder.first(t)
	lease(t, r).wants(t, 2)
	holder.kill()
	waitFor(t, conn, lockPath, "2")
	lease(t, r).wants(t, 1)

	// A lead passes on faster than a session ends, at least on a machine that does nothing else for a moment.
	fastest := session
	for range 3 {
		leader := startHolder(t, "lead", z.Addr)
		leader.first(t)
		standby := startHolder(t, "lead", z.Addr)
		waitFor(t, conn, leadPath, "lock", "lock")
		leader.kill()
		killed := time.Now()
		next := standby.first(t)
		took := next.Sub(killed)
		t.Logf("lead taken over %v after the kill", took)
		if last := leader.last(); !next.After(last) {
			t.Errorf("the old leader acted last at %v, the new one first at %v", last, next)
		}
		fastest = min(fastest, took)
		standby.stop(t)
	}
	if fastest > session/2 {
		t.Errorf("the standby led %v after the kill at the earliest", fastest)
	}
}

// TestRegistryHolder is no test but the process that TestRegistryKilled kills: it writes down the time, again and
// again, while it may act.
func TestRegistryHolder(t *testing.T) {
	what, addr, _ := strings.Cut(os.Getenv("REGISTRY_HOLDER"), " ")
	act := func(ctx context.Context) error {
		for ctx.Err() == nil {
			fmt.Println("acting", time.Now().UnixNano())
			time.Sleep(5 * time.Millisecond)
		}
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	switch what {
	case "":
	case "lease":
		_ = registryAt(t, addr, nil).Lease(ctx, lockPath, 0, func(ctx context.Context, _ registry.Lease) error { return act(ctx) })
	case "lead":
		_ = registryAt(t, addr, nil).Lead(ctx, leadPath, act)
	}
}

// holder is a process that runs TestRegistryHolder.
type holder struct {
	cmd   *exec.Cmd
	stdin io.Closer
	begun chan time.Time // when it first acted
	done  chan struct{}
	acted atomic.Int64
}

func startHolder(t *testing.T, what, addr string) *holder {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestRegistryHolder$")
	cmd.Env = append(os.Environ(), "REGISTRY_HOLDER="+what+" "+addr)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &holder{cmd: cmd, stdin: stdin, begun: make(chan time.Time, 1), done: make(chan struct{})}
	go func() {
		defer close(h.done)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			text, ok := strings.CutPrefix(lines.Text(), "acting ")
			at, err := strconv.ParseInt(text, 10, 64)
			if !ok || err != nil {
				continue
			}
			if h.acted.Swap(at) == 0 {
				h.begun <- time.Unix(0, at)
			}
		}
	}()
	t.Cleanup(h.kill)
	return h
}

// first waits until the process acts.
func (h *holder) first(t *testing.T) time.Time {
	t.Helper()
	select {
	case at := <-h.begun:
		return at
	case <-time.After(testkit.Patience):
		t.Fatal("the process does not begin to act")
		return time.Time{}
	}
}

// last is when the process, which has ended, acted last.
func (h *holder) last() time.Time { return time.Unix(0, h.acted.Load()) }

func (h *holder) kill() {
	_ = h.cmd.Process.Kill()
	<-h.done
	_ = h.cmd.Wait()
}

func (h *holder) stop(t *testing.T) {
	t.Helper()
	h.stdin.Close()
	<-h.done
	if err := h.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestRegistryNeverTwo has candidates for one lead whose lines are cut one after the other, over restarts of ZooKeeper.
func TestRegistryNeverTwo(t *testing.T) {
	t.Parallel()
	const candidates = 3
	z := rig.StartZooKeeper(t, t.TempDir())
	var (
		acting  atomic.Int32
		leading atomic.Int32 // 1 + candidate, 0: nobody
		all     sync.WaitGroup
		lines   [candidates]*line
	)
	ctx, cancel := context.WithCancel(context.Background())
	defer all.Wait()
	defer cancel()
	for i := range candidates {
		lines[i] = newLine(t, z.Addr)
		r := registryAt(t, lines[i].addr(), nil)
		all.Go(func() {
			_ = r.Lead(ctx, leadPath, func(ctx context.Context) error {
				if n := acting.Add(1); n != 1 {
					t.Errorf("%d leaders", n)
				}
				leading.Store(int32(i + 1))
				<-ctx.Done()
				leading.CompareAndSwap(int32(i+1), 0)
				acting.Add(-1)
				return ctx.Err()
			})
		})
	}
	someone := func(context.Context) error {
		if leading.Load() == 0 {
			return errors.New("nobody leads")
		}
		return nil
	}
	for round := range 4 {
		testkit.Until(t, testkit.Patience, "somebody leads", someone)
		leader := leading.Load()
		lines[leader-1].cut()
		cut := time.Now()
		testkit.Until(t, testkit.Patience, "another leads", func(context.Context) error {
			if now := leading.Load(); now == 0 || now == leader {
				return fmt.Errorf("%d leads", now)
			}
			return nil
		})
		t.Logf("round %d: another leads %v after the cut", round, time.Since(cut))
		lines[leader-1].mend()
		z.Kill()
		z.Start()
	}
	testkit.Until(t, testkit.Patience, "somebody leads", someone)
}

// line is a TCP line to a server which can go dead without a word.
type line struct {
	ln net.Listener

	mu    sync.Mutex
	works chan struct{} // closed while it does
	conns map[net.Conn]bool
}

func newLine(t *testing.T, to string) *line {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{ln: ln, works: make(chan struct{}), conns: map[net.Conn]bool{}}
	l.mend()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			l.add(in)
			wg.Go(func() {
				defer l.remove(in)
				<-l.working()
				out, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				l.add(out)
				wg.Go(func() {
					defer l.remove(out)
					defer l.remove(in)
					l.copy(in, out)
				})
				l.copy(out, in)
				l.remove(out)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		l.mend()
		l.mu.Lock()
		for conn := range l.conns {
			conn.Close()
		}
		l.mu.Unlock()
		wg.Wait()
	})
	return l
}

func (l *line) addr() string { return l.ln.Addr().String() }

// cut lets nothing through any more.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.works = make(chan struct{})
}

// mend lets everything through, also what was held up.
func (l *line) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.works:
	default:
		close(l.works)
	}
}

// working returns what is closed once the line works.
func (l *line) working() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.works
}

func (l *line) add(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = true
}

func (l *line) remove(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	c.Close()
}

func (l *line) copy(to, from net.Conn) {
	buf := make([]byte, 4<<10)
	for {
		n, err := from.Read(buf)
		<-l.working()
		if err == nil {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}
