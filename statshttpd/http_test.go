package statshttpd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
)

func get(h http.Handler, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// golden compares an answer, indented, with a file in testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	var indented bytes.Buffer
	if err := json.Indent(&indented, bytes.TrimSpace(got), "", "  "); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, got)
	}
	indented.WriteByte('\n')
	testkit.Golden(t, name+".json", indented.Bytes())
}

// small fills s with a few shares whose sums can be done by hand.
func (s *Service) small(t testing.TB) {
	t.Helper()
	now := s.now()
	rig := s.connect(t, now.Add(-30*time.Minute), 1, "ann", "rig.1", "cgminer/4.12")
	axe := s.connect(t, now.Add(-2*time.Minute), 2, "bob", "a/x|e^", "\u2028<b>axe</b>")
	give := func(user int32, id int64, ago time.Duration, status share.Status, difficulty bitcoin.Difficulty) {
		s.mine(t, share.Share{
			ID: share.ID{Server: uint8(user)}, BitsReached: 0x1c00ffff + uint32(ago.Minutes()), UserID: user, WorkerID: id,
			Time: now.Add(-ago).Unix(), Status: status, Difficulty: difficulty,
			IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(user)}),
		})
	}
	for ago := time.Duration(0); ago < 20*time.Minute; ago += 10 * time.Second {
		give(1, rig, ago, share.StatusAccept, 10)
	}
	give(1, rig, time.Minute, share.StatusStale, 10)
	give(1, rig, time.Minute, share.StatusDuplicate, 10)
	give(1, rig, 25*time.Minute, share.StatusLowDifficulty, 10)
	give(2, axe, time.Minute, share.StatusAccept, -3)
	give(2, share.WorkerID("unnamed"), 50*time.Minute, share.StatusAccept, 10)
	s.network.Store(&network{Height: 101, Difficulty: 1000, JobTime: now.Add(-5 * time.Second)})
	for i, state := range []store.BlockState{store.Confirmed, store.Accepted, store.Rejected} {
		hash := strings.Repeat(fmt.Sprint(i), 64)
		err := s.db.Load().AddBlock(t.Context(), store.Block{
			UserID: 1, WorkerID: rig, WorkerName: "ann.rig.1", Height: int32(98 + i), Hash: hash, PrevHash: hash, Bits: 0x1d00ffff,
			RewardSat: 312_500_000 + int64(i), CreatedAt: now.Add(time.Duration(i-3) * 5 * time.Minute),
			SubPool: []string{"", "farm", ""}[i],
		})
		if err == nil {
			err = s.db.Load().SetBlockState(t.Context(), hash, state, int64(2-i))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var days, hours []store.Stats
	for _, key := range []store.StatsKey{{}, {UserID: 1}, {UserID: 1, WorkerID: rig}} {
		for ago := range 3 {
			key.Period = store.Hour.Period(now.Add(-time.Duration(ago) * time.Hour))
			hours = append(hours, store.Stats{
				StatsKey: key, Accept: difficulties(uint64(1000 + ago)), Stale: difficulties(7), Reject: difficulties(uint64(9 * ago)),
				RejectDetail: map[share.Status]bitcoin.Work{share.StatusDuplicate: difficulties(uint64(9 * ago))}, EarnSat: big.NewInt(11),
			})
		}
		key.Period = store.Day.Period(now)
		days = append(days, store.Stats{StatsKey: key, Accept: difficulties(3003)})
	}
	if err := s.db.Load().WriteStats(t.Context(), days, hours); err != nil {
		t.Fatal(err)
	}
	s.look(t)
}

func TestAPIAnswers(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	s.small(t)
	h := s.Handler()
	d := testkit.OpenAPI(t, openAPI)
	for name, target := range map[string]string{
		"pool":               "/api/v1/pool",
		"workers":            "/api/v1/workers",
		"workers-page":       "/api/v1/workers?sort=name&limit=1&offset=1&online=true",
		"workers-found":      "/api/v1/workers?q=ANN.R",
		"workers-none":       "/api/v1/workers?offset=1000",
		"worker":             "/api/v1/workers/ann/rig.1",
		"worker-odd-name":    "/api/v1/workers/bob/a%2Fx%7Ce%5E",
		"blocks":             "/api/v1/blocks",
		"users":              "/api/v1/users",
		"user":               "/api/v1/users/ann",
		"rounds":             "/api/v1/rounds",
		"merged-blocks":      "/api/v1/merged-blocks",
		"servers":            "/api/v1/servers",
		"history-minutes":    "/api/v1/workers/ann/rig.1/history?limit=3",
		"history-hours":      "/api/v1/pool/history?step=hour&limit=3",
		"history-days":       "/api/v1/users/ann/history?step=day&limit=2",
		"rejects":            "/api/v1/pool/rejects?limit=3",
		"error-no-user":      "/api/v1/users/nobody/history",
		"blocks-page":        "/api/v1/blocks?limit=1&offset=1",
		"legacy-pool":        "/",
		"legacy-worker":      "/worker_status?user_id=1&worker_id=" + fmt.Sprint(share.WorkerID("rig.1")),
		"legacy-user":        "/worker_status?user_id=1&worker_id=0",
		"legacy-unknown":     "/worker_status?user_id=77&worker_id=5,0",
		"legacy-merged":      "/worker_status?user_id=2&is_merge=true&worker_id=" + fmt.Sprintf("%d,%d,9", share.WorkerID("a/x|e^"), share.WorkerID("unnamed")),
		"legacy-flush":       "/flush_db_time",
		"legacy-bad-args":    "/worker_status?user_id=1",
		"error-no-such-path": "/api/v1/nothing",
		"error-no-worker":    "/api/v1/workers/ann/nobody",
	} {
		w := get(h, target)
		if legacy := strings.HasPrefix(name, "legacy"); legacy && w.Code != http.StatusOK {
			t.Errorf("%s: status %d", target, w.Code)
		} else if !legacy && name != "error-no-such-path" {
			d.Check(httptest.NewRequest(http.MethodGet, target, nil), w.Result())
		}
		body := w.Body.Bytes()
		if name == "legacy-pool" { // counts other requests of this test
			body = replaceNumbers(t, body, "request", "repbytes")
		}
		golden(t, name, body)
	}
}

func replaceNumbers(t *testing.T, body []byte, keys ...string) []byte {
	t.Helper()
	var answer struct {
		No   int            `json:"err_no"`
		Msg  string         `json:"err_msg"`
		Data map[string]any `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if _, ok := answer.Data[key].(float64); !ok {
			t.Errorf("%s is %v", key, answer.Data[key])
		}
		answer.Data[key] = 0
	}
	out, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAPIBeforeAnythingIsKnown(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	s.replayed.Store(false)
	s.db.Store(nil)
	h := s.Handler()
	golden(t, "starting-pool", get(h, "/api/v1/pool").Body.Bytes())
	golden(t, "starting-workers", get(h, "/api/v1/workers").Body.Bytes())
	golden(t, "starting-legacy", get(h, "/pool_status").Body.Bytes())
	golden(t, "starting-legacy-worker", get(h, "/worker_status?user_id=1&worker_id=1").Body.Bytes())
	d := testkit.OpenAPI(t, openAPI)
	for _, path := range []string{"pool", "workers", "workers/ann/rig.1", "blocks"} {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/"+path, nil)
		d.Check(r, get(h, r.URL.Path).Result())
	}
	w := get(h, "/api/v1/blocks")
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("blocks: status %d", w.Code)
	}
	golden(t, "starting-blocks", w.Body.Bytes())
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "BtcShare") || !strings.Contains(err.Error(), "database") {
		t.Errorf("ready says %v", err)
	}
}

// TestAway keeps figures from seeming current while what they come from does not answer.
func TestAway(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	s.small(t)
	h, d := s.Handler(), testkit.OpenAPI(t, openAPI)
	pool := func() (answer struct {
		Away       []string
		SharesAsOf *time.Time `json:"shares_as_of"`
	},
	) {
		t.Helper()
		w := get(h, "/api/v1/pool")
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		d.Check(httptest.NewRequest(http.MethodGet, "/api/v1/pool", nil), w.Result())
		return answer
	}
	if got := pool(); len(got.Away) != 0 || got.SharesAsOf == nil || !got.SharesAsOf.Equal(noon.Truncate(time.Second)) {
		t.Errorf("everything is there: %v", got)
	}
	left := noon.Add(-time.Minute)
	s.heard.Store(left.Unix())
	s.kafka.Set(errUnavailable)
	s.looking.Set(errUnavailable)
	if got := pool(); !slices.Equal(got.Away, []string{"kafka", "database"}) || got.SharesAsOf == nil || !got.SharesAsOf.Equal(left) {
		t.Errorf("both are away: %v", got)
	}
	s.heard.Store(0)
	if got := pool(); got.SharesAsOf != nil {
		t.Errorf("Kafka was never there: %v", got)
	}
}

func TestAPIRefuses(t *testing.T) {
	t.Parallel()
	h := newTestService(t, noon).Handler()
	tests := []struct {
		method, target string
		status         int
		code           string
	}{
		{"GET", "/api/v1/pool?x=1", 400, "invalid_parameter"},
		{"GET", "/api/v1/workers?limit=0", 400, "invalid_parameter"},
		{"GET", "/api/v1/workers?limit=1001", 400, "invalid_parameter"},
		{"GET", "/api/v1/workers?limit=1e3", 400, "invalid_parameter"},
		{"GET", "/api/v1/workers?limit=", 400, "invalid_parameter"},
		{"GET", "/api/v1/workers?limit=1&limit=2", 400, "invalid_parameter"},
		{"GET", "/api/v1/workers?offset=-1", 400, "invalid_parameter"},
		{"GET", "/api/v1/workers?offset=99999999999999999999", 400, "invalid_parameter"},
		{"GET", "/api/v1/workers?sort=password", 400, "invalid_parameter"},
		{"GET", "/api/v1/workers?online=maybe", 400, "invalid_parameter"},
		{"GET", "/api/v1/workers?q=" + strings.Repeat("a", 1000), 400, "invalid_parameter"},
		{"GET", "/api/v1/workers?q=%zz", 400, "invalid_parameter"},
		{"GET", "/api/v1/workers/a/b?x=1", 400, "invalid_parameter"},
		{"GET", "/api/v1/blocks?limit=501", 400, "invalid_parameter"},
		{"GET", "/api/v1/workers/a", 404, "not_found"},
		{"GET", "/api/v1/workers/%00/%ff", 404, "not_found"},
		{"GET", "/api/v2/pool", 404, "not_found"},
		{"GET", "/..%2f..%2fetc/passwd", 404, "not_found"},
		{"POST", "/api/v1/pool", 405, "method_not_allowed"},
		{"DELETE", "/api/v1/workers/a/b", 405, "method_not_allowed"},
		{"PUT", "/", 405, "method_not_allowed"},
	}
	for _, test := range tests {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(test.method, test.target, nil))
		var answer struct {
			Error struct{ Code, Message string }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != test.status || answer.Error.Code != test.code {
			t.Errorf("%s %.60s: %d %s, want %d %s", test.method, test.target, w.Code, w.Body, test.status, test.code)
		}
		if len(answer.Error.Message) > 300 || answer.Error.Message == "" {
			t.Errorf("%s %.60s: message of %d bytes", test.method, test.target, len(answer.Error.Message))
		}
		if got := w.Header().Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s %.60s: cache-control %q", test.method, test.target, got)
		}
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	h := newTestService(t, noon).Handler()
	tests := []struct{ target, accept, contentType, cache string }{
		{"/", "text/html,application/xhtml+xml", "text/html; charset=utf-8", "no-cache"},
		{"/", "*/*", "text/json", "no-store"},
		{"/pool_status", "text/html", "text/json", "no-store"},
		{"/assets/app.js", "", "text/javascript; charset=utf-8", "no-cache"},
		{"/assets/style.css", "", "text/css; charset=utf-8", "no-cache"},
		{"/favicon.svg", "", "image/svg+xml", "no-cache"},
		{"/api/v1/pool", "", "application/json; charset=utf-8", "public, max-age=2"},
		{"/api/v1/openapi.yaml", "", "application/yaml", "no-cache"},
	}
	for _, test := range tests {
		w := get(h, test.target, "Accept", test.accept)
		got := w.Header()
		if w.Code != 200 || got.Get("Content-Type") != test.contentType || got.Get("Cache-Control") != test.cache {
			t.Errorf("%s for %q: %d %q %q", test.target, test.accept, w.Code, got.Get("Content-Type"), got.Get("Cache-Control"))
		}
		if csp := got.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'self';") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: content security policy %q", test.target, csp)
		}
		if got.Get("X-Content-Type-Options") != "nosniff" || got.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: headers %v", test.target, got)
		}
		if tag := got.Get("ETag"); tag != "" {
			if again := get(h, test.target, "Accept", test.accept, "If-None-Match", tag); again.Code != http.StatusNotModified {
				t.Errorf("%s: status %d for its own tag", test.target, again.Code)
			}
		} else if test.cache == "no-cache" {
			t.Errorf("%s has no tag", test.target)
		}
	}
	for _, target := range []string{"/assets/none.js", "/assets/..", "/assets/", "/assets/%2e%2e%2fhttp.go"} {
		if w := get(h, target); w.Code == http.StatusOK {
			t.Errorf("%s: status %d", target, w.Code)
		}
	}
}

// The page must need nothing from elsewhere and nothing that its content security policy forbids.
func TestPageIsSelfContained(t *testing.T) {
	t.Parallel()
	h := newTestService(t, noon).Handler()
	page := get(h, "/", "Accept", "text/html").Body.String()
	for _, forbidden := range []string{"http:", "https:", "<style", " style=", "onclick", "javascript:"} {
		if strings.Contains(page, forbidden) {
			t.Errorf("the page contains %q", forbidden)
		}
	}
	for _, name := range []string{
		"app.js", "chart.js", "dom.js", "format.js", "miner.js", "paths.js", "rejects.js", "timeline.js", "workers.js", "style.css",
	} {
		text := get(h, "/assets/"+name).Body.String()
		if text == "" {
			t.Errorf("%s is empty", name)
		}
		for _, forbidden := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "https:", "@import"} {
			if strings.Contains(text, forbidden) {
				t.Errorf("%s contains %q", name, forbidden)
			}
		}
	}
}

func TestLegacyTakesPosts(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	s.small(t)
	h := s.Handler()
	post := func(body string) string {
		r := httptest.NewRequest(http.MethodPost, "/worker_status/", strings.NewReader(body))
		r.Header.Set("Content-Type", "text/plain")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Body.String()
	}
	if got, want := post("user_id=1&worker_id=0"), get(h, "/worker_status?user_id=1&worker_id=0").Body.String(); got != want {
		t.Errorf("POST answers %s, GET %s", got, want)
	}
	many := "user_id=1&worker_id=0"
	for id := range 5000 {
		many += fmt.Sprintf(",%d", id)
	}
	var answer struct{ Data map[string]any }
	if err := json.Unmarshal([]byte(post(many)), &answer); err != nil || len(answer.Data) != 5000 {
		t.Errorf("asked for 5000 workers, answered for %d: %v", len(answer.Data), err)
	}
	for _, body := range []string{
		"", "user_id=1", "user_id=x&worker_id=1", "user_id=1&worker_id=1,x", "user_id=1&worker_id=1" + strings.Repeat(",1", 1<<20),
		"user_id=1&worker_id=" + strings.Repeat("9", 100), "user_id=99999999999&worker_id=1", "%",
	} {
		if got := strings.TrimSpace(post(body)); got != `{"err_no":1,"err_msg":"invalid args"}` {
			t.Errorf("%.40q: %s", body, got)
		}
	}
}

func TestWebDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := newTestService(t, noon).cfg
	cfg.WebDir = dir
	if _, err := New(cfg, testDeps()); err == nil || !strings.Contains(err.Error(), "web_dir") {
		t.Errorf("an empty folder: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg, testDeps())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := get(s.Handler(), "/", "Accept", "text/html").Body.String(); got != "mine" {
		t.Errorf("the page is %q", got)
	}
}

// Whatever is asked for: an answer from the table of statuses, valid JSON under /api, and nothing of the question that
// would not be text.
func FuzzHandler(f *testing.F) {
	for _, target := range []string{
		"/", "/api/v1/pool", "/api/v1/workers?sort=-name&limit=5&offset=1&q=a&online=true", "/api/v1/workers/ann/rig.1",
		"/api/v1/users/ann/history?step=day&format=csv", "/api/v1/pool/rejects?limit=3", "/api/v1/users?q=a&state=all&sort=-workers&format=csv",
		"/api/v1/rounds", "/api/v1/events?user=ann&worker=rig.1", "/api/v1/blocks?limit=2",
		"/worker_status?user_id=1&worker_id=0,1&is_merge=t", "/flush_db_time", "/assets/app.js",
		"/api/client/ann/rig.1", "/pool/pool.status", "/users/ann", "/api/pools/btc/blocks?page=1&pageSize=2", "/api/pools/btc/miners/ann", "/api/stats", "/x%2f..%2fy?a;b",
	} {
		f.Add(target)
	}
	s := newTestService(f, noon)
	s.small(f)
	s.hub.stop() // who listens is sent away at once
	h := s.Handler()
	statuses := []int{200, 206, 301, 307, 308, 400, 404, 405}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL, r.RequestURI = u, target
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if !slices.Contains(statuses, w.Code) {
			t.Fatalf("%q: status %d: %s", target, w.Code, w.Body)
		}
		if strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") && !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%q: %s", target, w.Body)
		}
	})
}
