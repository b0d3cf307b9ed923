//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"btcpool/internal/bus"
	"btcpool/internal/testkit"
	"btcpool/internal/userchain"
	"btcpool/test/integration/rig"
)

const (
	switchToken = "0123456789abcdef"
	userChain   = "/sserver/userchain/bitcoin"
	autoReg     = "/sserver/autoreg"
)

// switchAPI is a process of switchapi with a client of it.
type switchAPI struct {
	*rig.Process
	t   *testing.T
	url string
}

// startSwitchAPI starts one whose configuration has more sections, with more top-level keys before them.
func startSwitchAPI(t *testing.T, dir, zookeeper, keys, sections string) *switchAPI {
	t.Helper()
	addr := testkit.FreeAddr(t)
	s := &switchAPI{t: t, url: "http://" + addr}
	s.Process = rig.StartService(t, dir, "switchapi", "switchapi", fmt.Sprintf("listen = %q\ndata_dir = %q\nchains = [\"btc\", \"bch\"]\n%s\n"+
		"[[clients]]\nname = \"users\"\ntoken = %q\nmay_write = true\nrate = 10000.0\n[zookeeper]\nservers = [%q]\nsession_timeout = \"4s\"\n%s",
		addr, filepath.Join(dir, "switchapi"), keys, switchToken, zookeeper, sections))
	s.waitReady()
	return s
}

func (s *switchAPI) waitReady() {
	s.t.Helper()
	testkit.Until(s.t, 30*time.Second, "switchapi answers", func(ctx context.Context) error {
		_, _, err := s.ask(ctx, http.MethodGet, "/status", "")
		return err
	})
}

func (s *switchAPI) ask(ctx context.Context, method, path, body string) (status int, text string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.SetBasicAuth("users", switchToken)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return res.StatusCode, string(answer), err
}

// wants asks and fails if the answer has another status, or does not say that.
func (s *switchAPI) wants(status int, says, method, path, body string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), testkit.Patience)
	defer cancel()
	got, text, err := s.ask(ctx, method, path, body)
	if err != nil || got != status || !strings.Contains(text, says) {
		s.t.Fatalf("%s %s: %d %s, %v; want %d with %s", method, path, got, text, err, status, says)
	}
}

// wantNode waits until a node says that.
func wantNode(t *testing.T, conn *zk.Conn, path, want string) {
	t.Helper()
	testkit.Until(t, testkit.Patience, path+" says "+want, func(context.Context) error {
		got, _, err := conn.Get(path)
		if err == nil && string(got) != want {
			err = fmt.Errorf("it says %q", got)
		}
		return err
	})
}

// TestSwitchAPIOutages switches users while ZooKeeper is killed and hangs and the service is killed: what was accepted
// last of each user is what its node says in the end, and every answer comes in time.
func TestSwitchAPIOutages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	s := startSwitchAPI(t, dir, z.Addr, "", "")
	conn := observer(t, z.Addr)

	s.wants(http.StatusOK, `"state":"written"`, http.MethodGet, "/switch?puname=Alice&coin=btc&wait=10000", "")
	wantNode(t, conn, userChain+"/alice", "btc")
	_, before, err := conn.Get(userChain + "/alice")
	if err != nil {
		t.Fatal(err)
	}
	s.wants(http.StatusOK, `"state":"written"`, http.MethodGet, "/switch?puname=alice&coin=btc&wait=10000", "")
	if _, after, err := conn.Get(userChain + "/alice"); err != nil || after.Version == before.Version {
		t.Errorf("the same once more is not written, which would repair a switch that was missed: %v", err)
	}

	z.Pause() // silent: connections stay, nobody answers
	s.wants(http.StatusAccepted, `"state":"accepted"`, http.MethodGet, "/switch?puname=alice&coin=bch&wait=300", "")
	s.wants(http.StatusOK, `"accepted":1`, http.MethodGet, "/status", "")
	// Killed while a client waits: nobody has told it anything, and the audit log names what is done all the same.
	gone := make(chan error)
	go func() {
		_, _, err := s.ask(t.Context(), http.MethodGet, "/switch?puname=bob&coin=bch&wait=10000", "")
		gone <- err
	}()
	testkit.Until(t, testkit.Patience, "bob's switch is accepted", func(ctx context.Context) error {
		_, text, err := s.ask(ctx, http.MethodGet, "/status", "")
		if err == nil && !strings.Contains(text, `"accepted":2`) {
			err = errors.New(text)
		}
		return err
	})
	s.Kill()
	if err := <-gone; err == nil {
		t.Fatal("the client had an answer before the kill")
	}
	var audit []byte
	logs, _ := filepath.Glob(filepath.Join(dir, "switchapi", "audit-*.jsonl"))
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		audit = append(audit, text...)
	}
	if !strings.Contains(string(audit), `"puname":"bob"`) {
		t.Errorf("the audit log does not know of bob's switch: %s", audit)
	}
	s.Start()
	s.waitReady()
	z.Resume()
	wantNode(t, conn, userChain+"/alice", "bch")
	wantNode(t, conn, userChain+"/bob", "bch")

	const users = 200
	last := make(map[string]string)
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 6 {
		switch round % 3 {
		case 0:
			z.Kill()
		case 1:
			s.Kill()
			s.Start()
			s.waitReady()
		case 2:
			z.Start()
		}
		for range 10 {
			coins := map[string][]string{}
			for range 20 {
				user, coin := fmt.Sprintf("user%d", random.IntN(users)), []string{"btc", "bch"}[random.IntN(2)]
				coins[coin] = append(coins[coin], user)
			}
			var body struct {
				UserCoins []map[string]any `json:"usercoins"`
			}
			for _, coin := range []string{"btc", "bch"} { // in this order
				body.UserCoins = append(body.UserCoins, map[string]any{"coin": coin, "punames": coins[coin]})
			}
			text, _ := json.Marshal(body) // texts
			status, answer, err := s.ask(t.Context(), http.MethodPost, "/switch/multi-user?wait=0", string(text))
			if err != nil || status != http.StatusOK && status != http.StatusAccepted {
				t.Fatalf("round %d: %d %s, %v", round, status, answer, err)
			}
			for _, coin := range []string{"btc", "bch"} {
				for _, user := range coins[coin] {
					last[user] = coin
				}
			}
		}
	}
	s.Kill()
	s.Start()
	z.WaitReady(t)
	for user, coin := range last {
		wantNode(t, conn, userChain+"/"+user, coin)
	}
	testkit.Until(t, testkit.Patience, "nothing waits", func(ctx context.Context) error {
		_, text, err := s.ask(ctx, http.MethodGet, "/status", "")
		if err == nil && !strings.Contains(text, `"accepted":0`) {
			err = errors.New(text)
		}
		return err
	})
}

// userSystem is whom a switchapi asks.
type userSystem struct {
	mu    sync.Mutex
	posts map[string]int // by user
	hang  chan struct{}  // POSTs wait for it to be closed
	lists map[string]map[string]int32
	coins map[string]string
	subs  map[string]string
	asked []url.Values // of the map
}

func (u *userSystem) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	say := func(data any) {
		_ = json.NewEncoder(w).Encode(map[string]any{"err_no": 0, "err_msg": nil, "data": data})
	}
	switch r.URL.Path {
	case "/new":
		var body map[string]string
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		user := body["sub_name"]
		u.posts[user]++
		hang := u.hang
		u.mu.Unlock()
		<-hang
		u.mu.Lock()
		id := 1000 + len(u.posts)
		if strings.HasPrefix(user, "bad") {
			id = 0
		}
		say(map[string]int{"puid": id})
	case "/map":
		u.asked = append(u.asked, r.URL.Query())
		say(map[string]any{"user_coin": u.coins, "now_date": time.Now().Unix()})
	case "/subs":
		say(map[string]any{"user_subpool": u.subs})
	default:
		say(u.lists[r.URL.Path])
	}
}

func (u *userSystem) change(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f()
}

// TestSwitchAPIRegistration registers users side by side, each once, and lets servers go on whether it worked or not.
func TestSwitchAPIRegistration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	conn := observer(t, z.Addr)
	system := &userSystem{posts: map[string]int{}, hang: make(chan struct{})}
	server := httptest.NewServer(system)
	defer server.Close()
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprintf("new%d", i))
	}
	names = append(names, "bad1")
	for _, name := range names {
		set(t, conn, autoReg+"/"+name, fmt.Sprintf(`{"SessionID":16777217,"Worker":"%s.rig"}`, name))
	}
	set(t, conn, autoReg+"/strange", "no JSON")
	s := startSwitchAPI(t, dir, z.Addr, "", fmt.Sprintf("[registration]\nurl = %q\ndefault_chain = \"bch\"\n[users]\nsafety_period = \"200ms\"\n", server.URL+"/new"))
	testkit.Until(t, testkit.Patience, "all are asked for at the same time", func(context.Context) (err error) {
		system.change(func() {
			if len(system.posts) < len(names) {
				err = fmt.Errorf("%d are", len(system.posts))
			}
		})
		return err
	})
	s.Kill() // before anybody was answered
	close(system.hang)
	s.Start()
	s.waitReady()
	testkit.Until(t, testkit.Patience, "no request is left", func(context.Context) error {
		left, _, err := conn.Children(autoReg)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%q are", left)
		}
		return err
	})
	for _, name := range names {
		there, _, err := conn.Exists(userChain + "/" + name)
		if err != nil || there != (name != "bad1") {
			t.Errorf("%s has a node: %v, %v", name, there, err)
		}
	}
	wantNode(t, conn, userChain+"/new0", "bch")
	system.change(func() {
		for name, posts := range system.posts {
			if posts > 2 { // once before the kill, once after
				t.Errorf("%s was registered %d times", name, posts)
			}
		}
	})
}

// TestSwitchAPIMaps follows what the user system says of users: nodes with ids, sub-pools, the spelling of names.
func TestSwitchAPIMaps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	conn := observer(t, z.Addr)
	system := &userSystem{
		lists: map[string]map[string]int32{"/btc": {"Alice": 12, "bob": 13}, "/bch": {"Alice_bch": 22, "carol": 23}},
		coins: map[string]string{"Alice": "bch", "x/y": "btc", "bob": "doge"}, subs: map[string]string{"bob": "farm"},
	}
	server := httptest.NewServer(system)
	defer server.Close()
	set(t, conn, userChain+"/carol", "btc") // is not changed by a list
	s := startSwitchAPI(t, dir, z.Addr, "", fmt.Sprintf("[nodes]\njson = true\ncase_index = \"/switcher/case\"\n"+
		"[users]\ncase_insensitive = false\nstrip_user_suffix = true\nlist_interval = \"1s\"\nreload_interval = \"1s\"\n"+
		"[[lists]]\nchain = \"btc\"\nurl = %[1]q\n[[lists]]\nchain = \"bch\"\nurl = %[2]q\n[map]\nurl = %[3]q\nsubpool_url = %[4]q\ninterval = \"1s\"\n",
		server.URL+"/btc", server.URL+"/bch", server.URL+"/map", server.URL+"/subs"))
	wantNode(t, conn, userChain+"/Alice", `{"chain":"bch","subpool":"","puids":{"bch":22,"btc":12}}`)
	wantNode(t, conn, userChain+"/bob", `{"chain":"btc","subpool":"farm","puids":{"btc":13}}`)
	wantNode(t, conn, userChain+"/carol", `{"chain":"btc","subpool":"","puids":{"bch":23}}`)
	wantNode(t, conn, "/switcher/case/alice", "Alice")
	s.wants(http.StatusOK, `"state":"written"`, http.MethodPost, "/user/change-subpool", "puname=carol&subpool=mine&wait=10000")
	s.wants(http.StatusNotFound, "mines no chain yet", http.MethodPost, "/user/change-subpool", "puname=nobody&subpool=mine&wait=10000")
	system.change(func() {
		system.coins = map[string]string{"Alice": "btc"}
		system.subs = map[string]string{}
		system.lists["/btc"] = map[string]int32{"Alice": 14, "bob": 13}
	})
	wantNode(t, conn, userChain+"/Alice", `{"chain":"btc","subpool":"","puids":{"bch":22,"btc":14}}`)
	wantNode(t, conn, userChain+"/bob", `{"chain":"btc","subpool":"","puids":{"btc":13}}`)
	system.change(func() {
		since := 0
		for _, query := range system.asked {
			if query.Get("last_date") != "" {
				since++
			}
		}
		if since == 0 || since == len(system.asked) {
			t.Errorf("%d of %d readings of the map are of what is new only", since, len(system.asked))
		}
	})
	// Nothing changes, so nothing is written, and no watch of a server fires.
	_, before, err := conn.Get(userChain + "/Alice")
	if err != nil {
		t.Fatal(err)
	}
	var readings int
	system.change(func() { readings = len(system.asked) })
	testkit.Until(t, testkit.Patience, "some more readings", func(context.Context) (err error) {
		system.change(func() {
			if len(system.asked) < readings+6 {
				err = fmt.Errorf("%d are", len(system.asked)-readings)
			}
		})
		return err
	})
	if _, after, err := conn.Get(userChain + "/Alice"); err != nil || after.Version != before.Version {
		t.Errorf("the node was written %d times, %v", after.Version-before.Version, err)
	}
}

// TestSwitchAPISubPool changes the coinbase of a sub-pool in a running jobmaker.
func TestSwitchAPISubPool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	conn := observer(t, z.Addr)
	s := startSwitchAPI(t, dir, z.Addr, "", "")
	const farm, update = `{"coin":"btc","subpool_name":"farm"}`, `{"coin":"btc","subpool_name":"farm","payout_addr":%q,"coinbase_info":%q}`
	s.wants(http.StatusNotFound, `"err_no":404`, http.MethodPost, "/subpool/get-coinbase", farm)
	set(t, conn, "/subpool/btc/farm", "")
	s.wants(http.StatusServiceUnavailable, `"err_no":503`, http.MethodPost, "/subpool/get-coinbase", farm)
	set(t, conn, "/subpool/btc/farm/ack", "{}")
	s.wants(http.StatusGatewayTimeout, `"err_no":504`, http.MethodPost, "/subpool/get-coinbase", farm)

	cfg := testkit.Broker(t)
	testkit.Bus(t, cfg, cfg.Topics.RawGBT, cfg.Topics.Job)
	rig.StartService(t, dir, "jobmaker", "jobmaker", fmt.Sprintf("network = \"regtest\"\npayout_address = %[1]q\n"+
		"[[sub_pools]]\nname = \"farm\"\npayout_address = %[1]q\ncoinbase_text = \"/old/\"\nupdate_path = \"/subpool/btc/farm\"\n"+
		"[zookeeper]\nservers = [%[2]q]\n[kafka]\nbrokers = [%[3]q]\n", rig.PayoutAddress, z.Addr, cfg.Brokers[0]))
	testkit.Until(t, testkit.Patience, "jobmaker answers", func(ctx context.Context) error {
		status, text, err := s.ask(ctx, http.MethodPost, "/subpool-get-coinbase", farm)
		if err == nil && (status != http.StatusOK || !strings.Contains(text, `"old":{"coinbase_info":"/old/"`) || !strings.Contains(text, `"success":true`)) {
			err = fmt.Errorf("%d %s", status, text)
		}
		return err
	})
	s.wants(http.StatusOK, `"new":{"coinbase_info":"/new/"`, http.MethodPost, "/subpool/update-coinbase", fmt.Sprintf(update, rig.PayoutAddress, "/new/"))
	s.wants(http.StatusOK, `"success":false`, http.MethodPost, "/subpool-update-coinbase", fmt.Sprintf(update, "nonsense", "/new/"))
	s.wants(http.StatusOK, `"success":true`, http.MethodPost, "/subpool/update-coinbase", fmt.Sprintf(update, rig.PayoutAddress, "/newer/"))
	s.wants(http.StatusOK, `"new":{"coinbase_info":"/newer/"`, http.MethodPost, "/subpool/get-coinbase", farm)
}

// TestSwitchAPIAuto commands servers through Kafka as quotes say, over a kill of the service and of Kafka.
func TestSwitchAPIAuto(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	kafka := rig.StartKafka(t, dir)
	quotes := filepath.Join(dir, "quotes.json")
	quote := func(text string) {
		t.Helper()
		if err := os.WriteFile(quotes+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(quotes+".new", quotes); err != nil {
			t.Fatal(err)
		}
	}
	var rate float64
	var mu sync.Mutex
	stats := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(w, `{"starting":false,"hashrate":{"5m":%f}}`, rate)
	}))
	defer stats.Close()
	quote(`{"coins":{"BTC":{"price":60000,"difficulty":100,"reward":3},"BCH":{"price":500,"difficulty":1,"reward":3}}}`)
	s := startSwitchAPI(t, dir, z.Addr, "", fmt.Sprintf("[auto]\nenabled = true\nsources = [%q]\ninterval = \"1s\"\nmin_dwell = \"0s\"\nfail_safe_chain = \"btc\"\n"+
		"[[auto.chains]]\nchain = \"btc\"\ncoin = \"BTC\"\n[[auto.chains]]\nchain = \"bch\"\ncoin = \"BCH\"\nmax_hashrate = \"100P\"\nhashrate_url = %q\n"+
		"[kafka]\nbrokers = [%q]\n", quotes, stats.URL, kafka.Addr))

	cfg := bus.DefaultConfig()
	cfg.Brokers = []string{kafka.Addr}
	client := testkit.Bus(t, cfg, "BtcManController", "BtcManProcessor")
	commands := make(chan userchain.SwitchCommand, 10_000)
	testkit.Run(t, func(ctx context.Context) error {
		return client.Read(ctx, "BtcManController", bus.Earliest(), func(m bus.Message) error {
			c, err := userchain.ParseSwitchCommand(m.Value)
			if err != nil {
				t.Errorf("%s: %v", m.Value, err)
			}
			commands <- c
			return nil
		})
	})
	var id uint64
	wants := func(what string, good func(userchain.Shares) bool) {
		t.Helper()
		var c userchain.SwitchCommand
		for limit := time.After(testkit.Patience); ; {
			select {
			case c = <-commands:
			case <-limit:
				t.Fatalf("no command for %s, the last is %+v", what, c)
			}
			if c.ID <= id {
				t.Fatalf("command %d after %d", c.ID, id)
			}
			if id = c.ID; good(c.Shares) {
				return
			}
		}
	}
	wants("btc, which is worth more", func(s userchain.Shares) bool { return s["btc"] == 1 })
	quote(`{"coins":{"BTC":{"price":60000,"difficulty":100,"reward":3},"BCH":{"price":607,"difficulty":1,"reward":3}}}`)
	wants("btc still, 1.2 % are too little", func(s userchain.Shares) bool { return s["btc"] == 1 })
	quote(`{"coins":{"BTC":{"price":60000,"difficulty":100,"reward":3},"BCH":{"price":900,"difficulty":1,"reward":3}}}`)
	wants("a part for bch, whose cap is not reached", func(s userchain.Shares) bool { return s["bch"] > 0 && s["btc"] > 0 })
	mu.Lock()
	rate = 2e17
	mu.Unlock()
	wants("nobody on bch, which has too many of its own", func(s userchain.Shares) bool { return s["bch"] == 0 })
	mu.Lock()
	rate = 1e16
	mu.Unlock()
	wants("all on bch, which has room", func(s userchain.Shares) bool { return s["bch"] == 1 })

	if err := os.Remove(quotes); err != nil { // what was chosen holds
		t.Fatal(err)
	}
	s.Kill()
	s.Start()
	s.waitReady()
	last := id
	wants("bch, as before the kill", func(s userchain.Shares) bool {
		if s["bch"] != 1 {
			t.Fatalf("%v", s)
		}
		return id > last+500 // 0.5 s: of the new process
	})
	kafka.Kill()
	kafka.Start()
	kafka.WaitReady(t)
	last = id
	wants("bch, when Kafka is back", func(userchain.Shares) bool { return id > last+1500 })

	// A server that starts is told at once; what servers answer is shown.
	for _, text := range []string{
		`{"type":"sserver_notify","action":"online","server_id":3}`,
		`{"type":"sserver_response","action":"auto_switch_chain","id":1,"server_id":3,"result":false,"reason":"no change"}`,
	} {
		if err := client.Write(t.Context(), "BtcManProcessor", bus.Message{Value: []byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Until(t, testkit.Patience, "the answer is shown", func(ctx context.Context) error {
		_, text, err := s.ask(ctx, http.MethodGet, "/status", "")
		if err == nil && !strings.Contains(text, `"servers":{"3":"1: no change"}`) {
			err = errors.New(text)
		}
		return err
	})
	logs, _ := filepath.Glob(filepath.Join(dir, "switchapi", "decisions-*.jsonl"))
	if len(logs) == 0 {
		t.Error("there is no log of decisions")
	}
}
