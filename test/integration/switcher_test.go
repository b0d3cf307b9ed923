//go:build integration

package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// chainPool is a sserver with a chain of its own: jobs are made here, all on blocks that begin with the chain's mark.
type chainPool struct {
	*rig.Process
	t     *testing.T
	addr  string
	admin string
	kafka bus.Config
	bus   *bus.Client
	ids   *job.IDs
	mark  byte
	jobs  int32
}

func startChainPool(t *testing.T, dir, name string, mark byte, id, users int, more ...string) *chainPool {
	t.Helper()
	p := &chainPool{t: t, addr: testkit.FreeAddr(t), admin: testkit.FreeAddr(t), kafka: testkit.Broker(t), ids: job.NewIDs(1), mark: mark}
	p.bus = testkit.Bus(t, p.kafka, p.kafka.Topics.Job, p.kafka.Topics.Share)
	var static strings.Builder
	for i := range users {
		fmt.Fprintf(&static, "user%d = %d\n", i, i+1)
	}
	for i, user := range more {
		fmt.Fprintf(&static, "%s = %d\n", user, users+i+1)
	}
	p.Process = rig.StartService(t, dir, "sserver-"+name, "sserver", fmt.Sprintf("listen = %q\nadmin = %q\ndata_dir = %q\nserver_id = %d\n"+
		"[development]\nsimulator = true\n[users]\nsource = \"static\"\n[users.static]\n%s\n[kafka]\nbrokers = [%q]\n",
		p.addr, p.admin, filepath.Join(dir, "sserver-"+name), id, static.String(), p.kafka.Brokers[0]))
	p.waitReady()
	return p
}

func (p *chainPool) waitReady() {
	p.t.Helper()
	testkit.Until(p.t, testkit.Patience, "sserver has a job", func(ctx context.Context) error {
		p.newJob()
		return ready(ctx, p.admin)
	})
}

func (p *chainPool) newJob() {
	p.t.Helper()
	p.jobs++
	j := testkit.Job(p.ids, p.mark, 100)
	if err := p.bus.Write(p.t.Context(), p.kafka.Topics.Job, bus.Message{Value: j.AppendTo(nil)}); err != nil {
		p.t.Fatal(err)
	}
}

// shares returns how many shares there are in the topic.
func (p *chainPool) shares() (n int64) {
	p.t.Helper()
	ends, err := p.bus.Offsets(p.t.Context(), p.kafka.Topics.Share, bus.Latest())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, end := range ends {
		n += end
	}
	return n
}

func ready(ctx context.Context, admin string) error {
	_, err := scrape(ctx, "http://"+admin+"/readyz")
	return err
}

func scrape(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(string(text))
	}
	return string(text), err
}

// switching is a process of switcher.
type switching struct {
	*rig.Process
	t           *testing.T
	addr, admin string
}

func startSwitcher(t *testing.T, dir, zookeeper, keys, sections string) *switching {
	t.Helper()
	s := &switching{t: t, addr: testkit.FreeAddr(t), admin: testkit.FreeAddr(t)}
	s.Process = rig.StartService(t, dir, "switcher", "switcher", fmt.Sprintf("admin = %q\nstatus = \"\"\ndata_dir = %q\nserver_id = 200\n%s\n"+
		"[[listeners]]\nlisten = %q\n[zookeeper]\nservers = [%q]\nsession_timeout = \"4s\"\n%s",
		s.admin, filepath.Join(dir, "switcher"), keys, s.addr, zookeeper, sections))
	s.waitReady()
	return s
}

func (s *switching) waitReady() {
	s.t.Helper()
	testkit.Until(s.t, testkit.Patience, "the switcher is ready", func(ctx context.Context) error { return ready(ctx, s.admin) })
}

// metric returns the sum of a metric over all labels that contain a text.
func (s *switching) metric(name, labels string) (sum float64) {
	s.t.Helper()
	text, err := scrape(s.t.Context(), "http://"+s.admin+"/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(\{[^}]*\})? (\S+)$`).FindAllStringSubmatch(text, -1) {
		if strings.Contains(m[1], labels) {
			v, _ := strconv.ParseFloat(m[2], 64)
			sum += v
		}
	}
	return sum
}

// machine is a miner: it keeps in mind which chain its last job is of.
type machine struct {
	conn  net.Conn
	user  string
	chain atomic.Uint32 // first byte of the job's previous block
	heard atomic.Int64  // when that changed, by the wall clock
	jobs  chan string   // ids of the latest job of each chain that it was given
	mu    sync.Mutex
	wait  map[int]chan bool
	next  int
	ended chan struct{}
	wrong atomic.Pointer[string] // what it was told that is no answer to anything
}

// logIn returns a miner that has a job.
func logIn(t *testing.T, addr, user string) *machine {
	t.Helper()
	return logInAll(t, addr, 1, func(int) string { return user })[0]
}

func tryLogIn(addr, user string) (*machine, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	m := &machine{conn: conn, user: user, jobs: make(chan string, 100), wait: make(map[int]chan bool), ended: make(chan struct{})}
	go m.listen()
	for _, request := range []string{`"mining.subscribe","params":["test/1"]`, fmt.Sprintf(`"mining.authorize","params":["%s.rig","x"]`, user)} {
		if !m.granted(request) {
			return m, fmt.Errorf("%s: %s is not granted", user, request)
		}
	}
	return m, nil
}

// logInAll returns miners of the users that name says, many at a time.
func logInAll(t *testing.T, addr string, n int, name func(i int) string) []*machine {
	t.Helper()
	machines := make([]*machine, n)
	var g errgroup.Group
	g.SetLimit(100)
	for i := range machines {
		g.Go(func() (err error) {
			machines[i], err = tryLogIn(addr, name(i))
			return err
		})
	}
	err := g.Wait()
	t.Cleanup(func() {
		for _, m := range machines {
			if m != nil {
				m.end()
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return machines
}

func (m *machine) end() {
	_ = m.conn.Close()
	<-m.ended
}

func (m *machine) listen() {
	defer close(m.ended)
	lines := bufio.NewScanner(m.conn)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var got struct {
			ID     *int
			Method string
			Params []any
			Result any
			Error  any
		}
		text := lines.Text()
		if err := json.Unmarshal(lines.Bytes(), &got); err != nil {
			m.wrong.Store(&text)
			return
		}
		switch {
		case got.Method == "mining.notify":
			prev := got.Params[1].(string)
			mark, _ := strconv.ParseUint(prev[6:8], 16, 8) // its 4 bytes come in reverse
			if m.chain.Swap(uint32(mark)) != uint32(mark) {
				m.heard.Store(time.Now().UnixNano())
			}
			select {
			case m.jobs <- got.Params[0].(string) + " " + got.Params[7].(string):
			default:
			}
		case got.ID != nil:
			m.mu.Lock()
			answer := m.wait[*got.ID]
			delete(m.wait, *got.ID)
			m.mu.Unlock()
			if answer == nil {
				m.wrong.Store(&text)
				continue
			}
			answer <- got.Error == nil && got.Result != false && got.Result != nil
		}
	}
}

// granted sends a request and reports whether the answer grants it.
func (m *machine) granted(request string) bool {
	answer := make(chan bool, 1)
	m.mu.Lock()
	m.next++
	id := m.next
	m.wait[id] = answer
	m.mu.Unlock()
	fmt.Fprintf(m.conn, `{"id":%d,"method":%s}`+"\n", id, request)
	select {
	case ok := <-answer:
		return ok
	case <-m.ended:
		return false
	case <-time.After(testkit.Patience):
		return false
	}
}

// share submits one for a job.
func (m *machine) share(job string) bool {
	id, ntime, _ := strings.Cut(job, " ")
	return m.granted(fmt.Sprintf(`"mining.submit","params":["%s.rig","%s","%08x","%s","%08x"]`, m.user, id, rand.Uint32(), ntime, rand.Uint32()))
}

const (
	markBTC = 0xa1
	markBCH = 0xb1
)

func chainSections(btc, bch string, more ...string) string {
	return fmt.Sprintf("[[chains]]\nname = \"btc\"\n[[chains.servers]]\naddr = %q\n%s\n[[chains]]\nname = \"bch\"\n[[chains.servers]]\naddr = %q\n",
		btc, strings.Join(more, "\n"), bch)
}

// TestSwitcher moves a miner between two servers of two chains by its user's node: a share that comes a second after the
// switch counts on the old chain only. Then the new chain's server is killed and started again, and the miner is there
// without having noticed but for its jobs.
func TestSwitcher(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	conn := observer(t, z.Addr)
	btc, bch := startChainPool(t, dir, "btc", markBTC, 1, 3), startChainPool(t, dir, "bch", markBCH, 2, 3)
	setNode(t, conn, userChain+"/user0", "btc")
	setNode(t, conn, userChain+"/user1", `{"chain":"bch","subpool":"","puids":{"bch":7}}`)
	nobody := testkit.FreeAddr(t) // one of the chain's servers is not there at all
	s := startSwitcher(t, dir, z.Addr, "default_chain = \"bch\"\nhold = \"60s\"",
		chainSections(btc.addr, bch.addr, fmt.Sprintf("[[chains.servers]]\naddr = %q", nobody)))
	m, other, missing := logIn(t, s.addr, "user0"), logIn(t, s.addr, "user1"), logIn(t, s.addr, "user2")
	testkit.Eventually(t, "all have jobs of their chains", func() bool {
		return m.chain.Load() == markBTC && other.chain.Load() == markBCH && missing.chain.Load() == markBCH
	})
	old := <-m.jobs
	for len(m.jobs) > 0 {
		old = <-m.jobs
	}
	if !m.share(old) {
		t.Error("a share is refused")
	}
	setNode(t, conn, userChain+"/user0", "bch")
	testkit.Eventually(t, "the miner has a job of the new chain", func() bool { return m.chain.Load() == markBCH })
	switched := time.Now()
	for time.Since(switched) < time.Second { // what the share is late by
		time.Sleep(10 * time.Millisecond)
	}
	if !m.share(old) {
		t.Error("a late share is refused")
	}
	testkit.Eventually(t, "both shares are the old chain's", func() bool { return btc.shares() == 2 })
	latest := <-m.jobs
	for len(m.jobs) > 0 {
		latest = <-m.jobs
	}
	if !m.share(latest) {
		t.Error("a share for the new chain is refused")
	}
	testkit.Eventually(t, "one share is the new chain's", func() bool { return bch.shares() == 1 })
	if n := btc.shares(); n != 2 {
		t.Errorf("%d shares on the old chain", n)
	}
	setNode(t, conn, userChain+"/user2", "btc") // it had no node
	testkit.Eventually(t, "the user that had no node is switched", func() bool { return missing.chain.Load() == markBTC })

	bch.Kill()
	testkit.Eventually(t, "the loss is noticed", func() bool { return s.metric("btcpool_switcher_server_connections_lost_total", "") >= 2 })
	bch.Start()
	bch.waitReady()
	for len(m.jobs) > 0 {
		<-m.jobs
	}
	select {
	case latest = <-m.jobs:
	case <-time.After(testkit.Patience):
		t.Fatal("no job after the server came back")
	}
	if !m.share(latest) {
		t.Error("a share for the server that came back is refused")
	}
	for _, m := range []*machine{m, other, missing} {
		if wrong := m.wrong.Load(); wrong != nil {
			t.Errorf("%s was told %s", m.user, *wrong)
		}
		select {
		case <-m.ended:
			t.Errorf("%s was disconnected", m.user)
		default:
		}
	}
}

// TestSwitcherOutages switches 1,000 users 1,000 times while ZooKeeper is killed again and again: ten seconds after it
// is back nobody is on a wrong chain, nobody was disconnected, and there is one watch a user.
func TestSwitcherOutages(t *testing.T) {
	t.Parallel()
	const users, switches, kills = 1000, 1000, 4
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	conn := observer(t, z.Addr)
	btc, bch := startChainPool(t, dir, "btc", markBTC, 1, users), startChainPool(t, dir, "bch", markBCH, 2, users)
	s := startSwitcher(t, dir, z.Addr, "", chainSections(btc.addr, bch.addr))
	chains := make([]string, users)
	for i := range users {
		chains[i] = "btc"
		setNode(t, conn, fmt.Sprintf("%s/user%d", userChain, i), "btc")
	}
	machines := logInAll(t, s.addr, users, func(i int) string { return fmt.Sprintf("user%d", i) })
	for n := range switches {
		if n%(switches/kills) == switches/kills/2 {
			z.Kill()
			z.Start()
		}
		i := rand.IntN(users)
		next := map[string]string{"btc": "bch", "bch": "btc"}[chains[i]]
		setNode(t, conn, fmt.Sprintf("%s/user%d", userChain, i), next)
		chains[i] = next
	}
	wrong := func() (n int) {
		for i, m := range machines {
			if got := m.chain.Load(); (got == markBCH) != (chains[i] == "bch") {
				n++
			}
		}
		return n
	}
	begin := time.Now()
	testkit.Until(t, testkit.Patience, "everybody is on the right chain", func(context.Context) error {
		if n := wrong(); n > 0 {
			return fmt.Errorf("%d are on a wrong one", n)
		}
		return nil
	})
	t.Logf("everybody is on the right chain after %s", time.Since(begin))
	testkit.Eventually(t, "one watch a user", func() bool { return s.metric("btcpool_chainwatch_watches", "") == users })
	for _, m := range machines {
		if wrong := m.wrong.Load(); wrong != nil {
			t.Errorf("%s was told %s", m.user, *wrong)
		}
		select {
		case <-m.ended:
			t.Errorf("%s was disconnected", m.user)
		default:
		}
	}
	t.Logf("%v switches, %v tries in vain", s.metric("btcpool_switcher_switches_total", ""), s.metric("btcpool_switcher_switches_failed_total", ""))
}

var switchMiners = flag.Int("switch-miners", 300, "miners of TestSwitchLatency")

// TestSwitchLatency measures how long it takes from the write of a user's node to the new chain's job at the miner, while
// many are connected: for single users, and for all at once. Loaded machines are slow, so nothing is demanded of it but
// that everybody arrives.
func TestSwitchLatency(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	conn := observer(t, z.Addr)
	users := min(*switchMiners, 1000)
	btc, bch := startChainPool(t, dir, "btc", markBTC, 1, users), startChainPool(t, dir, "bch", markBCH, 2, users)
	s := startSwitcher(t, dir, z.Addr, "", chainSections(btc.addr, bch.addr))
	for i := range users {
		setNode(t, conn, fmt.Sprintf("%s/user%d", userChain, i), "btc")
	}
	machines := logInAll(t, s.addr, *switchMiners, func(i int) string { return fmt.Sprintf("user%d", i%users) })
	arrived := func(of []*machine, mark uint32) func() bool {
		return func() bool {
			return !slices.ContainsFunc(of, func(m *machine) bool { return m.chain.Load() != mark })
		}
	}
	testkit.Eventually(t, "all have jobs", arrived(machines, markBTC))
	of := func(user int) (own []*machine) {
		for i := user; i < len(machines); i += users {
			own = append(own, machines[i])
		}
		return own
	}
	var single []time.Duration
	for user := range min(users, 200) {
		began := time.Now()
		setNode(t, conn, fmt.Sprintf("%s/user%d", userChain, user), "bch")
		testkit.Eventually(t, "a user is switched", arrived(of(user), markBCH))
		for _, m := range of(user) {
			single = append(single, time.Duration(m.heard.Load()-began.UnixNano()))
		}
	}
	said := func(what string, took []time.Duration) {
		slices.Sort(took)
		at := func(part float64) time.Duration {
			return took[min(int(part*float64(len(took))), len(took)-1)].Round(100 * time.Microsecond)
		}
		t.Logf("%s, %d miners connected: %d jobs after p50 %s, p99 %s, longest %s", what, len(machines), len(took), at(.5), at(.99), at(1))
	}
	said("single users", single)
	var ops []any
	for i := min(users, 200); i < users; i++ {
		ops = append(ops, &zk.SetDataRequest{Path: fmt.Sprintf("%s/user%d", userChain, i), Data: []byte("bch"), Version: -1})
	}
	if len(ops) == 0 {
		return
	}
	began := time.Now()
	if _, err := conn.Multi(ops...); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "all are switched", arrived(machines, markBCH))
	var all []time.Duration
	for user := min(users, 200); user < users; user++ {
		for _, m := range of(user) {
			all = append(all, time.Duration(m.heard.Load()-began.UnixNano()))
		}
	}
	said("all others at once", all)
	if text, err := scrape(t.Context(), "http://"+s.admin+"/metrics"); err == nil {
		t.Logf("resident memory of the switcher: %s", regexp.MustCompile(`(?m)^process_resident_memory_bytes (\S+)`).FindString(text))
	}
}

// TestSwitcherRegistration has users registered that have no node: who registers removes the request when there is one, or
// refuses by that; nobody does it within the time that a miner waits for; there are too many. However many miners of a user
// come, there is one request.
func TestSwitcherRegistration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	conn := observer(t, z.Addr)
	btc := startChainPool(t, dir, "btc", markBTC, 1, 3)
	s := startSwitcher(t, dir, z.Addr, "", fmt.Sprintf("[[chains]]\nname = \"btc\"\n[[chains.servers]]\naddr = %q\n"+
		"[users]\nautoreg = %q\nmax_registrations = 2\nregistration_timeout = \"10s\"\n", btc.addr, autoReg))
	requests := func(want ...string) {
		t.Helper()
		testkit.Eventually(t, fmt.Sprintf("there are requests for %v", want), func() bool {
			names, _, err := conn.Children(autoReg)
			slices.Sort(names)
			return err == nil && slices.Equal(names, want)
		})
	}
	outcome := make(chan error, 10)
	come := func(user string) {
		go func() {
			m, err := tryLogIn(s.addr, user)
			outcome <- err
			if m != nil {
				m.end()
			}
		}()
	}
	come("user0")
	come("user0")
	requests("user0")
	text, _, err := conn.Get(autoReg + "/user0")
	if err != nil || !strings.Contains(string(text), `"Worker":"user0.rig"`) || !strings.Contains(string(text), `"SessionID":33554`) {
		t.Errorf("the request says %s, %v", text, err)
	}
	setNode(t, conn, userChain+"/user0", "btc")
	if err := conn.Delete(autoReg+"/user0", -1); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-outcome; err != nil {
			t.Errorf("a registered user: %v", err)
		}
	}
	come("refused")
	requests("refused")
	if err := conn.Delete(autoReg+"/refused", -1); err != nil {
		t.Fatal(err)
	}
	if <-outcome == nil {
		t.Error("a user who was not registered is let in")
	}
	come("late")
	requests("late")
	come("later")
	requests("late", "later")
	come("many")
	for range 3 {
		if <-outcome == nil {
			t.Error("a user whom nobody registers is let in")
		}
	}
	for what, least := range map[string]float64{"too many": 1, "late": 2, "done": 2} {
		if n := s.metric("btcpool_chainwatch_registrations_total", `"`+what+`"`); n < least {
			t.Errorf("%v registrations %s", n, what)
		}
	}
	z.Kill() // which never makes a request of a user that is not known
	come("stranger")
	if <-outcome == nil {
		t.Error("a stranger is let in while ZooKeeper is away")
	}
	if n := s.metric("btcpool_switcher_refusals_total", `"unavailable"`); n < 1 {
		t.Errorf("%v refused for lack of ZooKeeper", n)
	}
}

// TestSwitcherCaseIndex has a miner call its user as it likes: the index says how that is written. While ZooKeeper is away
// it is remembered, by the next process, too.
func TestSwitcherCaseIndex(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	conn := observer(t, z.Addr)
	btc := startChainPool(t, dir, "btc", markBTC, 1, 0, "Alice", "Bob")
	setNode(t, conn, userChain+"/Alice", "btc")
	setNode(t, conn, userChain+"/Bob", "btc")
	setNode(t, conn, "/case/alice", "Alice")
	setNode(t, conn, "/case/bob", "Mallory") // another's name
	s := startSwitcher(t, dir, z.Addr, "", fmt.Sprintf("[[chains]]\nname = \"btc\"\n[[chains.servers]]\naddr = %q\n"+
		"[users]\ncase_insensitive = false\ncase_index = \"/case\"\nautoreg = \"\"\n", btc.addr))
	come := func(user string, in bool) {
		t.Helper()
		m, err := tryLogIn(s.addr, user)
		if (err == nil) != in {
			t.Errorf("%s: %v", user, err)
		}
		if m != nil {
			m.end()
		}
	}
	come("aLICE", true)
	come("Bob", true)
	come("bob", false)
	z.Kill()
	come("ALICE", true)
	if code, err := s.Stop(); code != 0 || err != nil {
		t.Fatalf("stopped with %d, %v", code, err)
	}
	s.Start()
	s.waitReady()
	come("alicE", true)
	come("carol", false)
}
