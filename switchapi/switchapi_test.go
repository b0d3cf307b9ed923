package switchapi_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/switchapi"
)

const (
	token  = "0123456789abcdef"
	reader = "a token of a reader"
)

// testConfig is of a pool whose ZooKeeper is away.
func testConfig(t *testing.T) switchapi.Config {
	t.Helper()
	cfg := switchapi.DefaultConfig()
	cfg.Listen, cfg.DataDir, cfg.Chains = "127.0.0.1:0", t.TempDir(), []string{"btc", "bch"}
	hash := sha256.Sum256([]byte(reader))
	cfg.Clients = []switchapi.Client{{Name: "users", Token: token, MayWrite: true, Rate: 1000}, {Name: "page", TokenSHA256: hex.EncodeToString(hash[:])}}
	cfg.ZooKeeper.Servers = []string{"127.0.0.1:1"}
	cfg.Nodes.Timeout = config.Duration(100 * time.Millisecond)
	cfg.Nodes.Lead = ""
	return cfg
}

// running is a service and a client of it.
type running struct {
	t    *testing.T
	url  string
	reg  *prometheus.Registry
	doc  *testkit.Description
	stop func()
}

func start(t *testing.T, cfg switchapi.Config) *running {
	t.Helper()
	r := &running{t: t, reg: prometheus.NewRegistry(), doc: testkit.OpenAPI(t, switchapi.OpenAPI)}
	s, err := switchapi.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: r.reg})
	if err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + s.Addr().String()
	r.stop = testkit.Run(t, s.Run)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return r
}

// ask sends a request with a token and returns status and answer, which must be as described.
func (r *running) ask(method, path, body, token string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if name, password, ok := strings.Cut(token, "\n"); ok {
		req.SetBasicAuth(name, password)
	} else {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if strings.HasPrefix(body, "{") {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if res.StatusCode != http.StatusNotFound && res.StatusCode != http.StatusMethodNotAllowed {
		res.Body = io.NopCloser(bytes.NewReader(text))
		r.doc.Check(req, res)
	}
	return res.StatusCode, strings.TrimSpace(string(text))
}

// TestRequests asks for everything that can be wrong, and for what is accepted while ZooKeeper is away.
func TestRequests(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Nodes.JSON = true
	r := start(t, cfg)
	many := `{"usercoins":[{"coin":"btc","punames":["alice","Bob"]},{"coin":"ltc","punames":["carol"]}]}`
	for _, tt := range []struct {
		method, path, body, token string
		status                    int
		says                      []string
	}{
		{"GET", "/switch?puname=Alice&coin=bch&wait=0", "", token, 202, []string{`"err_no":0,"err_msg":"","success":true`, `"puname":"alice"`, `"state":"accepted"`}},
		{"POST", "/user/switch-chain", "puname=alice&coin=bch&wait=0&puid=7", "users\n" + token, 202, []string{`"success":true`}},
		{"GET", "/switch?coin=bch", "", token, 400, []string{`"err_no":101`, `"success":false`, `"state":"refused"`}},
		{"GET", "/switch?puname=a/b&coin=bch", "", token, 400, []string{`"err_no":102`}},
		{"GET", "/switch?puname=..&coin=bch", "", token, 400, []string{`"err_no":102`}},
		{"GET", "/switch?coin=bch&puname=" + strings.Repeat("a", 201), "", token, 400, []string{`"err_no":102`}},
		{"GET", "/switch?puname=alice", "", token, 400, []string{`"err_no":103`}},
		{"GET", "/switch?puname=alice&coin=ltc", "", token, 400, []string{`"err_no":104`}},
		{"GET", "/switch?puname=alice&coin=auto", "", token, 400, []string{`"err_no":104`}}, // there is no auto mode here
		{"GET", "/switch?puname=alice&coin=btc&puid=0", "", token, 400, []string{`"err_no":400`}},
		{"GET", "/switch?puname=alice&coin=btc&wait=10001", "", token, 400, []string{`"err_no":400`}},
		{"POST", "/switch/multi-user?wait=0", many, token, 207, []string{`"err_no":104`, `"puname":"bob","coin":"btc","subpool":null,"err_no":0,"err_msg":"","state":"accepted"`, `"puname":"carol"`}},
		{"POST", "/switch-multi-user", `{"usercoins":[]}`, token, 400, []string{`"err_no":108`}},
		{"POST", "/user/switch-chain/multi", `{}`, token, 400, []string{`"err_no":109`}},
		{"POST", "/switch/multi-user", `{"usercoins":"x"}`, token, 400, []string{`"err_no":400`}},
		{"POST", "/switch/multi-user", `{"usercoins":[` + strings.Repeat(" ", 1<<20), token, 400, []string{`"err_no":400`}},
		{"POST", "/switch/multi-user", fmt.Sprintf(`{"usercoins":[{"coin":"btc","punames":[%s"a"]}]}`, strings.Repeat(`"a",`, 10_000)), token, 400, []string{`"err_no":400`}},
		{"POST", "/user/change-subpool", "puname=alice&subpool=farm&wait=0", token, 202, []string{`"subpool":"farm"`}},
		{"GET", "/user/change-subpool?puname=alice&subpool=a/b", "", token, 400, []string{`"err_no":102`}},
		{"POST", "/user/change-subpool/multi?wait=0", `{"usersubpools":[{"subpool":"","punames":["alice"]}]}`, token, 202, []string{`"success":true`}},
		{"POST", "/user/change-subpool/multi", `{}`, token, 400, []string{`"err_no":110`}},
		{"POST", "/subpool/get-coinbase", `{"coin":"btc","subpool_name":"farm"}`, token, 503, []string{`"err_no":105`}},
		{"POST", "/subpool-get-coinbase", `{"coin":"ltc","subpool_name":"farm"}`, token, 400, []string{`"err_no":104`}},
		{"POST", "/subpool/update-coinbase", `{"coin":"btc","subpool_name":"../x","payout_addr":"","coinbase_info":""}`, token, 400, []string{`"err_no":400`}},
		{"POST", "/subpool-update-coinbase", `{"subpool_name":"farm"}`, token, 400, []string{`"err_no":103`}},
		{"GET", "/", "", reader, 200, []string{`{"err_no":0,"err_msg":null,"data":{}}`}},
		{"GET", "/?coin=ltc", "", reader, 400, []string{`"err_no":104`}},
		{"GET", "/?last_id=x", "", reader, 400, []string{`"err_no":400`}},
		{"GET", "/status", "", reader, 200, []string{`"accepted":2`, `"auto":null`}},
		{"GET", "/nothing", "", reader, 404, []string{`"err_no":404`}},
		{"DELETE", "/switch", "", token, 405, []string{`"err_no":405`}},
		// Nobody gets in without a token, or further than with it.
		{"GET", "/switch?puname=alice&coin=bch", "", reader, 403, []string{`"err_no":403`}},
		{"GET", "/switch?puname=alice&coin=bch", "", "", 401, []string{`"err_no":401`, `"success":false`}},
		{"GET", "/", "", "another token", 401, []string{`"err_no":401`}},
		{"GET", "/status", "", "page\n" + token, 401, []string{`"err_no":401`}}, // that of another client
	} {
		status, text := r.ask(tt.method, tt.path, tt.body, tt.token)
		if status != tt.status {
			t.Errorf("%s %.60s: %d %.200s", tt.method, tt.path, status, text)
		}
		for _, part := range tt.says {
			if !strings.Contains(text, part) {
				t.Errorf("%s %.60s: no %s in %.300s", tt.method, tt.path, part, text)
			}
		}
	}
	if got := testkit.Metric(t, r.reg, "btcpool_switchapi_changes_total", "client", "users", "state", "accepted"); got != 6 {
		t.Errorf("%v changes are accepted", got)
	}
	if got := testkit.Metric(t, r.reg, "btcpool_switchapi_accepted"); got != 2 {
		t.Errorf("%v users are waiting", got)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/switch?puname=alice&coin=bch&wait=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("users", token) // as a browser does that remembers it
	for site, want := range map[string]int{"cross-site": http.StatusForbidden, "same-site": http.StatusForbidden, "none": http.StatusAccepted} {
		req.Header.Set("Sec-Fetch-Site", site)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if res.Body.Close(); res.StatusCode != want {
			t.Errorf("a page that is %s: %d", site, res.StatusCode)
		}
	}
	testkit.Eventually(t, "strangers are held off", func() bool {
		status, _ := r.ask("GET", "/status", "", "guess")
		return status == http.StatusTooManyRequests
	})
	if status, _ := r.ask("GET", "/status", "", reader); status != http.StatusOK {
		t.Errorf("a client is held off with them: %d", status)
	}

	// The audit log has who wanted what.
	files, _ := filepath.Glob(filepath.Join(cfg.DataDir, "audit-*.jsonl"))
	if len(files) != 1 {
		t.Fatalf("%q", files)
	}
	audit, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var first struct{ Client, From, Path, PUName, Coin, State string }
	line, _, _ := bytes.Cut(audit, []byte("\n"))
	if err := json.Unmarshal(line, &first); err != nil || first.Client != "users" || first.PUName != "alice" || first.Coin != "bch" || first.State != "accepted" || first.Path != "/switch" {
		t.Errorf("%s, %v", line, err)
	}
	if bytes.Contains(audit, []byte(token)) {
		t.Error("the audit log has a token")
	}
}

// TestRate holds a client to what it may ask.
func TestRate(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Clients[1].Rate = 0.1
	r := start(t, cfg)
	if status, _ := r.ask("GET", "/", "", reader); status != http.StatusOK {
		t.Error(status)
	}
	if status, text := r.ask("GET", "/", "", reader); status != http.StatusTooManyRequests || !strings.Contains(text, `"err_no":429`) {
		t.Error(status, text)
	}
}

// TestLists serves what it has read, says who is too new to be switched, and remembers the rest over a restart.
func TestLists(t *testing.T) {
	t.Parallel()
	var users map[string]int32
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"err_no": 0, "data": users})
	}))
	defer source.Close()
	users = map[string]int32{"alice": 1, "Bob_bch": 2, "a/b": 3}
	cfg := testConfig(t)
	cfg.Lists = []switchapi.List{{Chain: "btc", URL: source.URL}}
	cfg.Users.ListInterval, cfg.Users.StripUserSuffix = config.Duration(time.Second), true
	cfg.Users.SafetyPeriod = config.Duration(time.Hour)
	r := start(t, cfg)
	testkit.Eventually(t, "the list", func() bool {
		_, text := r.ask("GET", "/?coin=bch&last_id=0", "", reader)
		return text == `{"err_no":0,"err_msg":null,"data":{"a/b":3,"alice":1,"bob":2}}`
	})
	if _, text := r.ask("GET", "/?coin=btc&last_id=1", "", reader); text != `{"err_no":0,"err_msg":null,"data":{"a/b":3,"bob":2}}` {
		t.Error(text)
	}
	if _, text := r.ask("GET", "/switch?puname=nobody&coin=btc&wait=0", "", token); !strings.Contains(text, `"warning":"the list of btc does not have the user`) {
		t.Error(text)
	}
	testkit.Eventually(t, "the users are noticed", func() bool {
		_, text := r.ask("GET", "/status", "", reader)
		return strings.Contains(text, `"users":{"btc":2}`)
	})
	if _, text := r.ask("GET", "/switch?puname=alice&coin=bch&wait=0", "", token); !strings.Contains(text, `"warning":""`) || !strings.Contains(text, "accepted") {
		t.Error(text)
	}
	oldest := func() float64 { return testkit.Metric(t, r.reg, "btcpool_switchapi_oldest_due_seconds") }
	if got := oldest(); got != 0 {
		t.Errorf("alice is new, and due for %v s", got)
	}
	testkit.Eventually(t, "a snapshot", func() bool {
		found, _ := filepath.Glob(filepath.Join(cfg.DataDir, "users-*.json"))
		return len(found) == 1
	})
	r.stop()
	r = start(t, cfg)
	r.ask("GET", "/switch?puname=bob&coin=bch&wait=0", "", token)
	testkit.Eventually(t, "bob is known since before the restart", func() bool { return oldest() > 0 })
}

// TestServerThatStarts has servers be commanded once an hour, and one that has just started at once.
func TestServerThatStarts(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Kafka = testkit.Broker(t)
	quotes := filepath.Join(t.TempDir(), "quotes.json")
	if err := os.WriteFile(quotes, []byte(`{"coins":{"BTC":{"price":60000,"difficulty":100,"reward":3}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.AutoChain.Enabled, cfg.AutoChain.FailSafeChain, cfg.AutoChain.Interval = true, "btc", config.Duration(time.Hour)
	cfg.AutoChain.Sources, cfg.AutoChain.Chains = []string{quotes}, []switchapi.AutoOf{{Chain: "btc", Coin: "BTC"}}
	client := testkit.Bus(t, cfg.Kafka, cfg.AutoChain.ControllerTopic, cfg.AutoChain.ProcessorTopic)
	r := start(t, cfg)
	commands := func() float64 { return testkit.Metric(t, r.reg, "btcpool_switchapi_commands_total") }
	testkit.Eventually(t, "the first command", func() bool { return commands() == 1 })
	testkit.Eventually(t, "the decision", func() bool {
		_, text := r.ask("GET", "/status", "", reader)
		return strings.Contains(text, `"best":"btc"`)
	})
	testkit.Eventually(t, "one for the server", func() bool { // which says so until somebody reads the topic
		notice := bus.Message{Value: []byte(`{"type":"sserver_notify","action":"online","server_id":3}`)}
		if err := client.Write(t.Context(), cfg.AutoChain.ProcessorTopic, notice); err != nil {
			t.Fatal(err)
		}
		return commands() > 1
	})
}

// TestNewAndClose builds the service twice in one place, and one that cannot listen.
func TestNewAndClose(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.AutoChain.Enabled, cfg.AutoChain.FailSafeChain = true, "btc"
	cfg.AutoChain.Sources, cfg.AutoChain.Chains = []string{"quotes.json"}, []switchapi.AutoOf{{Chain: "btc", Coin: "BTC"}}
	for range 2 {
		s, err := switchapi.New(cfg, service.Deps{Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listen = s.Addr().String()
		other := cfg
		if _, err := switchapi.New(other, service.Deps{Log: zerolog.Nop()}); err == nil || !strings.Contains(err.Error(), "lock") {
			t.Errorf("a second one in the same folder: %v", err)
		}
		other.DataDir = t.TempDir()
		if _, err := switchapi.New(other, service.Deps{Log: zerolog.Nop()}); err == nil || !strings.Contains(err.Error(), "listen") {
			t.Errorf("a second one at the same address: %v", err)
		}
		if err := s.Ready(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	cfg.Clients[1].Token, cfg.Clients[1].TokenSHA256 = token, ""
	if _, err := switchapi.New(cfg, service.Deps{Log: zerolog.Nop()}); err == nil || !strings.Contains(err.Error(), "page has the token of users") {
		t.Errorf("two clients with one token: %v", err)
	}
}
