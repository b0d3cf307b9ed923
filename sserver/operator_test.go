package sserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"btcpool/internal/agentwire"
	"btcpool/internal/guard"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/sserver"
	"btcpool/sserver/operator"
)

const adminToken = "a-token-nobody-guesses"

// withAdmin has an admin API listen on a socket in a folder of its own.
func withAdmin(tb testing.TB, cfg sserver.Config) sserver.Config {
	tb.Helper()
	dir, err := os.MkdirTemp("", "admin") // t.TempDir is too long for a socket
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	cfg.AdminAPI.Listen = "unix:" + filepath.Join(dir, "s")
	return cfg
}

// admin asks the admin API and returns the status; answer may be nil.
func (p *pool) admin(method, path string, body, answer any) int {
	p.tb.Helper()
	var in []byte
	if body != nil {
		var err error
		if in, err = json.Marshal(body); err != nil {
			p.tb.Fatal(err)
		}
	}
	res := p.adminText(method, path, string(in), adminToken)
	if answer != nil {
		if err := json.Unmarshal(res.Body.Bytes(), answer); err != nil {
			p.tb.Fatalf("%s %s: %s: %v", method, path, res.Body, err)
		}
	}
	return res.Code
}

// adminText asks the admin API as anybody may and records the answer.
func (p *pool) adminText(method, path, body, token string) *httptest.ResponseRecorder {
	p.tb.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, p.AdminAddr().Network(), p.AdminAddr().String())
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(p.tb.Context(), method, "http://sserver/api/v1"+path, strings.NewReader(body))
	if err != nil {
		p.tb.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := (&http.Client{Transport: transport, Timeout: patience}).Do(req)
	if err != nil {
		p.tb.Fatal(err)
	}
	defer res.Body.Close()
	answer := httptest.NewRecorder()
	maps.Copy(answer.Header(), res.Header)
	answer.WriteHeader(res.StatusCode)
	if _, err := io.Copy(answer, res.Body); err != nil {
		p.tb.Fatal(err)
	}
	return answer
}

type object = map[string]any

// sessions returns what list returns of each of the sessions found.
func (p *pool) sessions(query string) (ids []string, list []object) {
	p.tb.Helper()
	var answer struct{ Sessions []object }
	if status := p.admin("GET", "/sessions"+query, nil, &answer); status != http.StatusOK {
		p.tb.Fatalf("%s: status %d", query, status)
	}
	for _, s := range answer.Sessions {
		ids = append(ids, s["id"].(string))
	}
	return ids, answer.Sessions
}

// loginAs logs in with a user agent.
func (p *pool) loginAs(agent, name string) *client {
	p.tb.Helper()
	c := p.dial()
	var result []any
	c.mustCall(&result, "mining.subscribe", agent)
	c.extraNonce1, c.nonceBytes = result[1].(string), int(result[2].(float64))
	c.mustCall(nil, "mining.authorize", name, "x")
	return c
}

func TestAdminSessions(t *testing.T) {
	t.Parallel()
	cfg := withAdmin(t, testConfig(t))
	cfg.Users.Static["bob"] = 8
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	rig := p.loginAs("cgminer/4.12", "alice.rig")
	w := rig.work()
	rig.wantSubmit(rig.share(w, 1), 0)
	rig.wantSubmit(rig.share(w, 1), 22)
	other := p.loginAs("bosminer/1", "bob.rig")
	a, _ := p.agent("")
	a.frame(agentwire.Register{Session: 5, Agent: "inner/1", Worker: "s19"}, agentwire.Register{Session: 9, Agent: "inner/2", Worker: "s21"})
	newcomer := p.dial()
	newcomer.mustCall(nil, "mining.ping")
	testkit.Eventually(t, "the agent's miners", func() bool {
		var v object
		p.admin("GET", "/sessions/"+a.extraNonce1, nil, &v)
		return v["miners"] == 2.0
	})

	for query, want := range map[string][]string{
		"?user=alice":                     {rig.extraNonce1, a.extraNonce1},
		"?worker=rig":                     {rig.extraNonce1, other.extraNonce1},
		"?user=alice&worker=rig":          {rig.extraNonce1},
		"?worker=s21":                     {a.extraNonce1},
		"?user=bob&worker=s21":            nil,
		"?agent=MINER":                    {rig.extraNonce1, other.extraNonce1},
		"?agent=bosminer&address=::1":     nil,
		"?agent=bos&address=127.0.0.1":    {other.extraNonce1},
		"?agent=bos&address=127.0.0.0/8":  {other.extraNonce1},
		"?agent=bos&address=192.0.2.0/24": nil,
		"?user=carol":                     nil,
	} {
		slices.Sort(want)
		if got, _ := p.sessions(query); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}

	var all, paged []string
	all, _ = p.sessions("")
	if len(all) != 4 || !slices.IsSorted(all) {
		t.Errorf("all: %v", all)
	}
	for next := "?limit=3"; next != ""; {
		var answer struct {
			Total    int
			Next     string
			Sessions []object
		}
		p.admin("GET", "/sessions"+next, nil, &answer)
		if answer.Total != 4 || len(answer.Sessions) > 3 {
			t.Fatalf("%s: %+v", next, answer)
		}
		for _, s := range answer.Sessions {
			paged = append(paged, s["id"].(string))
		}
		if next = ""; answer.Next != "" {
			next = "?limit=3&after=" + answer.Next
		}
	}
	if !slices.Equal(paged, all) {
		t.Errorf("in pages: %v, want %v", paged, all)
	}

	var got object
	if status := p.admin("GET", "/sessions/"+rig.extraNonce1, nil, &got); status != http.StatusOK {
		t.Fatal(status)
	}
	for _, key := range []string{"connected_at", "last_share_at"} {
		at, err := time.Parse(time.RFC3339, got[key].(string))
		if age := time.Since(at); err != nil || age < 0 || age > patience {
			t.Errorf("%s: %v", key, got[key])
		}
		delete(got, key)
	}
	want := object{
		"id": rig.extraNonce1, "state": "authorized", "address": "127.0.0.1", "listener": p.Addr().String(), "agent": "cgminer/4.12",
		"workers": []any{"alice.rig"}, "difficulty": 1.0 / (1 << 20), "fixed": false, "accepted": 1.0, "rejected": 1.0, "miners": nil,
		"users": []any{object{"name": "alice", "id": 7.0}}, "minimum_difficulty": 1.0 / (1 << 30), "version_mask": "00000000",
		"jobs": 1.0, "unsent_bytes": 0.0, "chain": "", "sub_pool": "",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	var miners struct {
		Total  int
		Next   *int
		Miners []object
	}
	p.admin("GET", "/sessions/"+a.extraNonce1+"/miners?limit=1", nil, &miners)
	if miners.Total != 2 || miners.Next == nil || *miners.Next != 5 || miners.Miners[0]["worker"] != "alice.s19" {
		t.Errorf("first page: %+v", miners)
	}
	p.admin("GET", "/sessions/"+a.extraNonce1+"/miners?after=5", nil, &miners)
	if len(miners.Miners) != 1 || miners.Miners[0]["number"] != 9.0 || miners.Miners[0]["agent"] != "inner/2" {
		t.Errorf("second page: %+v", miners)
	}
	if status := p.admin("GET", "/sessions/"+rig.extraNonce1+"/miners", nil, nil); status != http.StatusNotFound {
		t.Errorf("miners of who is no agent: %d", status)
	}
}

// Walks go over sessions of all loops, more of them than are visited in a turn.
func TestAdminCrowd(t *testing.T) {
	t.Parallel()
	p := startPool(t, withAdmin(t, testConfig(t)))
	const crowd = 700
	for range crowd {
		p.dial()
	}
	testkit.Eventually(t, "all are there", func() bool { return p.Sessions() == crowd })
	seen := map[string]bool{}
	for after := ""; ; {
		ids, _ := p.sessions("?limit=300" + after)
		for _, id := range ids {
			seen[id] = true
		}
		if len(ids) < 300 {
			break
		}
		after = "&after=" + ids[len(ids)-1]
	}
	if len(seen) != crowd {
		t.Errorf("%d sessions seen", len(seen))
	}
	var done struct{ Sessions int }
	if p.admin("POST", "/kick", object{"all": true}, &done); done.Sessions != crowd {
		t.Errorf("%d kicked", done.Sessions)
	}
	testkit.Eventually(t, "all are gone", func() bool { return p.Sessions() == 0 })
}

func TestAdminKick(t *testing.T) {
	t.Parallel()
	p := startPool(t, withAdmin(t, testConfig(t)))
	p.TakeJob(p.newJob(1, 100))
	first, _ := p.miner()
	second := p.loginAs("other/1", "alice.second")
	second.work()
	stays := p.loginAs("other/1", "alice.third")
	for _, test := range []struct {
		order  object
		client *client
		want   string // the last line
	}{
		{object{"session": first.extraNonce1, "reconnect_to": "pool.example:3334"}, first, `{"id":null,"method":"client.reconnect","params":["pool.example",3334,0]}` + "\n"},
		{object{"worker": "second", "agent": "OTHER"}, second, ""},
	} {
		var done object
		if status := p.admin("POST", "/kick", test.order, &done); status != http.StatusOK || done["sessions"] != 1.0 {
			t.Fatalf("%v: status %d: %v", test.order, status, done)
		}
		if got := test.client.wantEnd(); got != test.want {
			t.Errorf("%v: the last line is %q", test.order, got)
		}
	}
	stays.mustCall(nil, "mining.ping")
	if n := p.metric("disconnects_total", "reason", "kicked"); n != 2 {
		t.Errorf("%v disconnects counted", n)
	}
	if status := p.admin("POST", "/kick", object{"session": first.extraNonce1}, nil); status != http.StatusNotFound {
		t.Errorf("one that has gone: status %d", status)
	}
}

func TestAdminDifficulty(t *testing.T) {
	t.Parallel()
	p := startPool(t, withAdmin(t, testConfig(t)))
	p.TakeJob(p.newJob(1, 100))
	c, before := p.miner()
	var done object
	p.admin("POST", "/difficulty", object{"session": c.extraNonce1, "difficulty": 0.9 / (1 << 16), "fixed": true}, &done)
	after := c.work()
	if after.difficulty != 1.0/(1<<16) || done["sessions"] != 1.0 {
		t.Errorf("difficulty %v, %v", after.difficulty, done)
	}
	c.wantSubmit(c.share(before, 1), 0) // as its job had it
	if _, list := p.sessions(""); list[0]["fixed"] != true {
		t.Errorf("not fixed: %v", list[0])
	}
	c.mustCall(nil, "mining.suggest_difficulty", 1.0/(1<<20))
	p.admin("POST", "/difficulty", object{"user": "alice", "difficulty": 1.0 / (1 << 18)}, nil)
	if after = c.work(); after.difficulty != 1.0/(1<<18) { // the miner's own wish was not heard
		t.Errorf("difficulty %v", after.difficulty)
	}
	if _, list := p.sessions(""); list[0]["fixed"] != false {
		t.Errorf("still fixed: %v", list[0])
	}

	a, _ := p.agent("d=1")
	a.frame(agentwire.Register{Session: 5, Worker: "s19"}, agentwire.Register{Session: 9, Worker: "s21"})
	testkit.Eventually(t, "the agent's miners", func() bool {
		p.admin("POST", "/difficulty", object{"session": a.extraNonce1, "difficulty": 64, "fixed": true}, &done)
		return done["miners"] == 2.0
	})
	if p.admin("POST", "/difficulty", object{"session": a.extraNonce1, "miner": 9, "difficulty": 256}, &done); done["miners"] != 1.0 {
		t.Errorf("one miner: %v", done)
	}
	p.TakeJob(p.newJob(2, 101))
	told := map[agentwire.Session]uint64{}
	for len(told) < 2 {
		d, err := agentwire.ParseSetDifficulty(a.readFrame())
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range d.Sessions {
			told[id] = d.Difficulty.Integer()
		}
	}
	if diff := cmp.Diff(map[agentwire.Session]uint64{5: 64, 9: 256}, told); diff != "" {
		t.Error(diff)
	}
	if status := p.admin("POST", "/difficulty", object{"session": a.extraNonce1, "miner": 7, "difficulty": 256}, nil); status != http.StatusNotFound {
		t.Errorf("a miner that is not there: status %d", status)
	}
}

func TestAdminMessage(t *testing.T) {
	t.Parallel()
	p := startPool(t, withAdmin(t, testConfig(t)))
	first, second := p.loginAs("a/1", "alice.first"), p.loginAs("b/1", "alice.second")
	p.dial().mustCall(nil, "mining.ping") // has not logged in
	texts := func(c *client) (list []string) {
		for m := c.note(); ; m = c.note() {
			if m.Method != "client.show_message" {
				t.Fatalf("%+v", m)
			}
			var text string
			if err := json.Unmarshal(m.Params[0], &text); err != nil {
				t.Fatal(err)
			}
			if list = append(list, text); text == "end" {
				return list
			}
		}
	}
	for _, test := range []struct {
		order object
		want  float64
	}{
		{object{"session": first.extraNonce1, "text": "one"}, 1},
		{object{"agent": "b/", "text": `quoted " <&> ü`}, 1},
		{object{"all": true, "text": "end"}, 2},
	} {
		var done object
		if p.admin("POST", "/message", test.order, &done); done["sessions"] != test.want {
			t.Errorf("%v: %v", test.order, done)
		}
	}
	if diff := cmp.Diff([][]string{{"one", "end"}, {`quoted " <&> ü`, "end"}}, [][]string{texts(first), texts(second)}); diff != "" {
		t.Error(diff)
	}
}

func TestAdminBans(t *testing.T) {
	t.Parallel()
	cfg := withAdmin(t, testConfig(t))
	cfg.Limits.Exempt = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	p := startPool(t, cfg)
	c := p.loginAs("a/1", "alice.rig")
	var got object
	if status := p.admin("POST", "/bans", object{"prefix": "127.0.0.9/16", "duration": "1h", "reason": "try"}, &got); status != http.StatusOK {
		t.Fatalf("status %d: %v", status, got)
	}
	until, err := time.Parse(time.RFC3339, got["until"].(string))
	if left := time.Until(until); err != nil || left < 59*time.Minute || left > time.Hour {
		t.Errorf("until %v", got["until"])
	}
	delete(got, "until")
	if diff := cmp.Diff(object{"prefix": "127.0.0.0/16", "reason": "try", "sessions": 1.0}, got); diff != "" {
		t.Error(diff)
	}
	c.wantEnd()
	p.dial().wantEnd()
	if n := p.metric("connections_refused_total", "reason", "banned"); n != 1 {
		t.Errorf("%v connections refused", n)
	}
	for prefix, want := range map[string]int{"192.0.2.0/24": 409, "192.0.2.7": 409, "192.0.2.0/23": 200, "0.0.0.0/0": 400, "": 400, "::ffff:1.2.3.4/120": 400} {
		if status := p.admin("POST", "/bans", object{"prefix": prefix, "duration": "30m"}, nil); status != want {
			t.Errorf("%q: status %d, want %d", prefix, status, want)
		}
	}
	var list struct {
		Total int
		Bans  []guard.Ban
	}
	p.admin("GET", "/bans?limit=1&offset=1", nil, &list)
	if list.Total != 2 || len(list.Bans) != 1 || list.Bans[0].Reason != "try" {
		t.Errorf("%+v", list)
	}
	for _, want := range []int{200, 404} {
		if status := p.admin("DELETE", "/bans?prefix=127.0.0.0/16", nil, nil); status != want {
			t.Errorf("lifted: status %d, want %d", status, want)
		}
	}
	p.loginAs("a/1", "alice.rig")
}

func TestAdminDrain(t *testing.T) {
	t.Parallel()
	p := startPool(t, withAdmin(t, testConfig(t)))
	p.TakeJob(p.newJob(1, 100))
	c, _ := p.miner()
	start := func(grace string) {
		t.Helper()
		var got object
		status := p.admin("POST", "/drain", object{"grace": grace, "reconnect_to": "other.example:3335"}, &got)
		if status != http.StatusOK || got["state"] != "draining" || p.Ready() == nil {
			t.Fatalf("status %d: %v, ready: %v", status, got, p.Ready())
		}
	}
	start("1h")
	if status := p.admin("POST", "/drain", object{"grace": "0s"}, nil); status != http.StatusConflict {
		t.Errorf("a second drain: status %d", status)
	}
	p.dial().wantEnd()
	if n := p.metric("connections_refused_total", "reason", "draining"); n != 1 {
		t.Errorf("%v connections refused", n)
	}
	var got object
	if p.admin("DELETE", "/drain", nil, &got); got["state"] != "none" || p.Ready() != nil {
		t.Errorf("cancelled: %v, ready: %v", got, p.Ready())
	}
	c.mustCall(nil, "mining.ping")
	p.miner()

	start("0s")
	for c.note().Method != "client.reconnect" {
	}
	c.wantEnd()
	testkit.Eventually(t, "all are gone", func() bool {
		p.admin("GET", "/drain", nil, &got)
		return got["state"] == "drained"
	})
	if got["connections"] != 0.0 || got["reconnect_to"] != "other.example:3335" || p.Ready() == nil {
		t.Errorf("drained: %v", got)
	}
	if status := p.admin("DELETE", "/drain", nil, nil); status != http.StatusOK || p.Ready() != nil {
		t.Errorf("status %d, ready: %v", status, p.Ready())
	}
	if status := p.admin("DELETE", "/drain", nil, nil); status != http.StatusNotFound {
		t.Errorf("no drain: status %d", status)
	}
	p.miner()
}

func TestAdminRefuses(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Limits = guard.DefaultLimits() // exempt addresses cannot be banned
	cfg.AdminAPI = operator.APIConfig{Listen: "127.0.0.1:0", TokenFile: filepath.Join(t.TempDir(), "token")}
	if err := os.WriteFile(cfg.AdminAPI.TokenFile, []byte("\n "+adminToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startPool(t, cfg)
	path := ""
	described := map[string][]string{"/openapi.yaml": {"GET"}, "/nothing": {"GET", "POST"}}
	for _, found := range regexp.MustCompile(`(?m)^  (/.*):$|^    (get|post|delete):$`).FindAllStringSubmatch(string(operator.OpenAPI), -1) {
		if found[1] != "" {
			path = found[1]
		} else {
			described[path] = append(described[path], strings.ToUpper(found[2]))
		}
	}
	if len(described) < 10 {
		t.Fatalf("only %d paths are described", len(described))
	}
	refused := 0.0
	for _, token := range []string{"", "a-token-nobody-guesse", adminToken + "x", "wrong"} {
		for path, methods := range described {
			for _, method := range append(methods, "PUT") {
				refused++
				if res := p.adminText(method, path, "{}", token); res.Code != http.StatusUnauthorized || !strings.Contains(res.Body.String(), `"unauthorized"`) {
					t.Errorf("%s %s with token %q: status %d: %s", method, path, token, res.Code, res.Body)
				}
			}
		}
	}
	long := strings.Repeat("x", 20_000)
	for _, test := range []struct {
		method, path, body string
		status             int
		code, allow        string
	}{
		{"GET", "/status", "", 200, "", ""},
		{"GET", "/nothing", "", 404, "not_found", ""},
		{"POST", "/status", "", 405, "method_not_allowed", "GET"},
		{"PUT", "/bans", "", 405, "method_not_allowed", "DELETE, GET, POST"},
		{"GET", "/status?x=1", "", 400, "invalid_request", ""},
		{"GET", "/sessions?limit=0", "", 400, "invalid_request", ""},
		{"GET", "/sessions?limit=1001", "", 400, "invalid_request", ""},
		{"GET", "/sessions?limit=1&limit=2", "", 400, "invalid_request", ""},
		{"GET", "/sessions?users=x", "", 400, "invalid_request", ""},
		{"GET", "/sessions?address=here", "", 400, "invalid_request", ""},
		{"GET", "/sessions?after=1", "", 400, "invalid_request", ""},
		{"GET", "/sessions/1", "", 400, "invalid_request", ""},
		{"GET", "/sessions/ffffffff", "", 404, "not_found", ""},
		{"POST", "/kick", "", 400, "invalid_request", ""},
		{"POST", "/kick", "{}", 400, "invalid_request", ""},
		{"POST", "/kick", `{"all":true,"user":"alice"}`, 400, "invalid_request", ""},
		{"POST", "/kick", `{"all":true}{}`, 400, "invalid_request", ""},
		{"POST", "/kick", `{"all":true} x`, 400, "invalid_request", ""},
		{"POST", "/kick?all=true", `{"all":true}`, 400, "invalid_request", ""},
		{"POST", "/kick", `{"all":true,"reconnect_to":"nowhere"}`, 400, "invalid_request", ""},
		{"POST", "/kick", `{"user":"` + long + `"}`, 413, "too_large", ""},
		{"POST", "/difficulty", `{"all":true}`, 400, "invalid_request", ""},
		{"POST", "/difficulty", `{"all":true,"difficulty":-1}`, 400, "invalid_request", ""},
		{"POST", "/difficulty", `{"all":true,"difficulty":1e30}`, 400, "invalid_request", ""},
		{"POST", "/difficulty", `{"all":true,"difficulty":1,"miner":3}`, 400, "invalid_request", ""},
		{"POST", "/message", `{"all":true}`, 400, "invalid_request", ""},
		{"POST", "/message", `{"all":true,"text":"two\nlines"}`, 400, "invalid_request", ""},
		{"POST", "/message", `{"all":true,"text":"` + long[:501] + `"}`, 400, "invalid_request", ""},
		{"POST", "/bans", `{"prefix":"192.0.2.1"}`, 400, "invalid_request", ""},
		{"POST", "/bans", `{"prefix":"127.0.0.1","duration":"1h"}`, 409, "conflict", ""},
		{"DELETE", "/bans", "", 400, "invalid_request", ""},
		{"POST", "/drain", `{"grace":"-1s"}`, 400, "invalid_request", ""},
		{"POST", "/drain", `{"grace":"25h"}`, 400, "invalid_request", ""},
	} {
		res := p.adminText(test.method, test.path, test.body, adminToken)
		allow := res.Header().Get("Allow")
		if res.Code != test.status || !strings.Contains(res.Body.String(), test.code) || allow != test.allow {
			t.Errorf("%s %s %.60s: status %d, allow %q: %s", test.method, test.path, test.body, res.Code, allow, res.Body)
		}
	}
	if n := p.metric("admin_requests_total", "code", "401"); n != refused {
		t.Errorf("%v of %v unauthorized requests counted", n, refused)
	}
}

func TestAdminConfig(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		api   operator.APIConfig
		fault string
	}{
		{"off", operator.APIConfig{}, ""},
		{"loopback", operator.APIConfig{Listen: "127.0.0.1:9120", Token: adminToken}, ""},
		{"IPv6 loopback", operator.APIConfig{Listen: "[::1]:9120", TokenFile: "f"}, ""},
		{"socket", operator.APIConfig{Listen: "unix:/run/s"}, ""},
		{"everywhere", operator.APIConfig{Listen: ":9120", Token: adminToken}, "of this machine only"},
		{"all addresses", operator.APIConfig{Listen: "0.0.0.0:9120", Token: adminToken}, "of this machine only"},
		{"a name", operator.APIConfig{Listen: "pool.example:9120", Token: adminToken}, "of this machine only"},
		{"no token", operator.APIConfig{Listen: "127.0.0.1:9120"}, "admin_api.token_file"},
		{"short token", operator.APIConfig{Listen: "127.0.0.1:9120", Token: "short"}, "16 printable"},
		{"two tokens", operator.APIConfig{Listen: "127.0.0.1:9120", Token: adminToken, TokenFile: "f"}, "only one"},
		{"no path", operator.APIConfig{Listen: "unix:"}, "must be like"},
	} {
		cfg := sserver.DefaultConfig()
		cfg.AdminAPI = test.api
		err := cfg.Validate()
		if test.fault == "" && err != nil || test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault)) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestAdminSocket(t *testing.T) {
	t.Parallel()
	cfg := withAdmin(t, testConfig(t))
	path := strings.TrimPrefix(cfg.AdminAPI.Listen, "unix:")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := sserver.New(cfg, service.Deps{Log: zerolog.Nop()}); err == nil {
		s.Close()
		t.Error("the socket of another process was taken")
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	p := startPool(t, cfg)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if res := p.adminText("GET", "/status", "", ""); res.Code != http.StatusOK {
		t.Errorf("without token: status %d", res.Code)
	}
	p.stop()
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket was left behind")
	}
}

// The description and the handler agree: on paths, methods and the fields of answers.
func TestAdminDescription(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Limits = guard.DefaultLimits() // exempt addresses cannot be banned
	p := startPool(t, withAdmin(t, cfg))
	d := testkit.OpenAPI(t, operator.OpenAPI)
	if res := p.adminText("GET", "/openapi.yaml", "", ""); !bytes.Equal(res.Body.Bytes(), operator.OpenAPI) {
		t.Error("another file is served")
	}
	for path, item := range d.Doc.Paths.Map() {
		described := strings.Join(slices.Sorted(maps.Keys(item.Operations())), ", ")
		if got := p.adminText("PATCH", path, "", "").Header().Get("Allow"); got != described {
			t.Errorf("%s: methods %s are answered, %s described", path, got, described)
		}
	}
	try := func(method, path, body string, want int) {
		t.Helper()
		res := p.adminText(method, path, body, "")
		if res.Code != want {
			t.Errorf("%s %s: status %d, want %d: %s", method, path, res.Code, want, res.Body)
		}
		d.Check(httptest.NewRequest(method, d.Doc.Servers[0].URL+path, nil), res.Result())
	}
	try("GET", "/status", "", 200)
	try("GET", "/sessions", "", 200)
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	c.wantSubmit(c.share(w, 1), 0)
	a, _ := p.agent("")
	a.frame(agentwire.Register{Session: 5, Agent: "inner/1", Worker: "s19"})
	testkit.Eventually(t, "the agent's miner", func() bool {
		var done object
		p.admin("POST", "/difficulty", object{"worker": "s19", "difficulty": 1}, &done)
		return done["miners"] == 1.0
	})
	try("GET", "/status", "", 200)
	try("GET", "/sessions?limit=1", "", 200)
	try("GET", "/sessions?limit=x", "", 400)
	for _, id := range []string{c.extraNonce1, a.extraNonce1} {
		try("GET", "/sessions/"+id, "", 200)
	}
	try("GET", "/sessions/00000000", "", 404)
	try("GET", "/sessions/"+a.extraNonce1+"/miners", "", 200)
	try("GET", "/sessions/"+c.extraNonce1+"/miners", "", 404)
	try("POST", "/difficulty", `{"all":true,"difficulty":1,"fixed":true}`, 200)
	try("POST", "/message", `{"all":true,"text":"hello"}`, 200)
	try("POST", "/kick", `{"all":true,"reconnect":true}`, 200)
	try("POST", "/kick", `{}`, 400)
	try("POST", "/bans", `{"prefix":"192.0.2.0/24","duration":"1h","reason":"x"}`, 200)
	try("POST", "/bans", `{"prefix":"127.0.0.1","duration":"1h"}`, 409)
	try("GET", "/bans", "", 200)
	try("DELETE", "/bans?prefix=192.0.2.0/24", "", 200)
	try("DELETE", "/bans?prefix=192.0.2.0/24", "", 404)
	try("GET", "/drain", "", 200)
	try("POST", "/drain", `{"grace":"0s"}`, 200)
	try("GET", "/drain", "", 200)
	try("DELETE", "/drain", "", 200)
}
