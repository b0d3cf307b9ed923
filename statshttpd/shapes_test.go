package statshttpd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

// recorded are paths of other pools and the files that hold what these answered.
var recorded = map[string]string{
	"/api/info":                   "public-pool-info",
	"/api/info/chart":             "public-pool-chart",
	"/api/pool":                   "public-pool-pool",
	"/api/network":                "public-pool-network",
	"/api/client/ann":             "public-pool-client",
	"/api/client/ann/chart":       "public-pool-chart",
	"/api/client/ann/rig.1":       "public-pool-worker",
	"/pool/pool.status":           "ckpool-status",
	"/users/ann":                  "ckpool-user",
	"/api/pools":                  "miningcore-pools",
	"/api/pools/btc":              "miningcore-pool",
	"/api/pools/btc/blocks":       "miningcore-blocks",
	"/api/pools/btc/miners":       "miningcore-miners",
	"/api/pools/btc/miners/ann":   "miningcore-miner",
	"/api/stats":                  "nomp-stats",
	"/api/pool_stats":             "nomp-pool-stats",
	"/api/pools?topMinersRange=1": "miningcore-pools",
	"/api/stats?_=1681615159":     "nomp-stats",
}

// leftOut are fields of those answers that say nothing about this pool.
var leftOut = []string{
	// of getmininginfo, which only a node knows
	"currentblockweight", "currentblocktx", "pooledtx",
	// of miningcore's configuration
	"website", "market", "twitter", "discord", "telegram", "varDiff", "tlsAuto", "payoutSchemeConfig", "shareBasedBanning",
	"clientConnectionTimeout", "jobRebroadcastTimeout", "blockRefreshInterval", "addressInfoLink", "infoLink", "type", "source",
	// of the chain and of payments
	"nextNetworkTarget", "nextNetworkBits", "lastNetworkBlockTime", "lastPayment", "lastPaymentLink",
}

// sameShape reports where got is not made as want is: other names, other types. Under "*" in want any names may stand.
func sameShape(t *testing.T, at string, want, got any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok {
			t.Errorf("%s is no object", at)
			return
		}
		if whichever, ok := want["*"]; ok {
			if len(got) == 0 {
				t.Errorf("%s is empty", at)
			}
			for name, of := range got {
				sameShape(t, at+"."+name, whichever, of)
			}
			return
		}
		for name := range want {
			if slices.Contains(leftOut, name) && got[name] == nil {
				continue
			}
			sameShape(t, at+"."+name, want[name], got[name])
		}
		for name := range got {
			if want[name] == nil {
				t.Errorf("%s.%s is not in the recorded answer", at, name)
			}
		}
	case []any:
		got, ok := got.([]any)
		if !ok || len(got) == 0 {
			t.Errorf("%s is no list, or empty", at)
			return
		}
		for i, of := range got {
			sameShape(t, fmt.Sprintf("%s[%d]", at, i), want[min(i, len(want)-1)], of)
		}
	default:
		if name := at[strings.LastIndex(at, ".")+1:]; got == nil && (name == "workerCount" || name == "effort") {
			return // not known
		}
		if fmt.Sprintf("%T", want) != fmt.Sprintf("%T", got) {
			t.Errorf("%s is %v, not of the type of %v", at, got, want)
		}
	}
}

// shaped is a service with all figures that other pools' answers have.
func shaped(t testing.TB) *Service {
	s := newTestService(t, noon)
	s.small(t)
	s.board.newRound(s.ledger.Load().Last)
	s.board.dayEnd = noon.Truncate(time.Hour).Unix()
	return s
}

func TestShapesAreAsRecorded(t *testing.T) {
	t.Parallel()
	s := shaped(t)
	h, d := s.Handler(), testkit.OpenAPI(t, shapesAPI)
	for target, name := range recorded {
		w := get(h, target)
		if w.Code != http.StatusOK {
			t.Errorf("%s: status %d: %s", target, w.Code, w.Body)
			continue
		}
		body := w.Body.Bytes()
		d.Check(httptest.NewRequest(http.MethodGet, target, nil), w.Result())
		if name == "ckpool-status" {
			body = fmt.Appendf(nil, "[%s]", bytes.ReplaceAll(bytes.TrimSpace(body), []byte("\n"), []byte(",")))
		}
		text, err := os.ReadFile(filepath.Join("testdata", "recorded", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var want, got any
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatalf("%s: %v\n%s", target, err, body)
		}
		sameShape(t, target, want, got)
		if !strings.Contains(target, "?") {
			golden(t, "shape"+strings.NewReplacer("/", "-", ".", "-").Replace(target), body)
		}
	}
}

// TestShapesOpenAPI has each path described, and each described one answered.
func TestShapesOpenAPI(t *testing.T) {
	t.Parallel()
	d := testkit.OpenAPI(t, shapesAPI)
	full, empty := shaped(t), newTestService(t, noon)
	answered := []string{nompLive}
	for _, e := range full.shapes() {
		answered = append(answered, e.path)
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(answered)), slices.Sorted(maps.Keys(d.Doc.Paths.Map()))); diff != "" {
		t.Errorf("paths (-answered +described):\n%s", diff)
	}
	unknown := strings.NewReplacer("{user}", "nobody", "{worker}", "rig.1", "{pool}", "btc")
	for path, item := range d.Doc.Paths.Map() {
		if path == nompLive {
			continue
		}
		ask := func(s *Service, target string, want ...int) {
			t.Helper()
			r, w := httptest.NewRequest(http.MethodGet, target, nil), httptest.NewRecorder()
			s.Handler().ServeHTTP(w, r)
			if !slices.Contains(want, w.Code) {
				t.Errorf("%s: status %d: %s", target, w.Code, w.Body)
			}
			if w.Code == http.StatusOK && w.Header().Get("ETag") == "" {
				t.Errorf("%s has no tag", target)
			}
			d.Check(r, w.Result())
		}
		ask(empty, unknown.Replace(path), 200, 404, 503)
		if strings.Contains(path, "{user}") {
			ask(full, unknown.Replace(path), 404)
		}
		if strings.Contains(path, "{pool}") {
			ask(full, strings.NewReplacer("{pool}", "ltc", "{user}", "ann").Replace(path), 404)
		}
		for _, p := range item.Get.Parameters {
			if p.Value.In == "query" {
				target := strings.NewReplacer("{pool}", "btc").Replace(path) + "?" + p.Value.Name + "="
				ask(full, fmt.Sprintf("%s%.0f", target, *p.Value.Schema.Value.Min), 200)
				ask(full, fmt.Sprintf("%s%.0f", target, *p.Value.Schema.Value.Max), 200)
				ask(full, fmt.Sprintf("%s%.0f", target, *p.Value.Schema.Value.Max+1), 400)
				ask(full, target+"x", 400)
			}
		}
		starting := newTestService(t, noon)
		starting.replayed.Store(false)
		if w := get(starting.Handler(), unknown.Replace(path)); w.Code != http.StatusServiceUnavailable && !strings.Contains(path, "{pool}") {
			t.Errorf("%s: status %d before shares are counted", path, w.Code)
		}
		off := newTestService(t, noon)
		off.cfg.Shapes = nil
		if w := get(off.Handler(), unknown.Replace(path)); w.Code != http.StatusNotFound {
			t.Errorf("%s: status %d where no shape is answered", path, w.Code)
		}
	}
}

// Names are text in every shape, whatever they hold, and lead to who has them.
func TestShapesOfHostileNames(t *testing.T) {
	t.Parallel()
	s := shaped(t)
	const user, name = `eve"},{"x":1`, `</script><img src=x onerror=alert(1)>/..%2f`
	id := s.connect(t, noon.Add(-5*time.Minute), 7, user, name, `"><b>/1`)
	s.mine(t, share.Share{UserID: 7, WorkerID: id, Time: noon.Unix(), Status: share.StatusAccept, Difficulty: 10})
	h := s.Handler()
	escaped := strings.NewReplacer("ann", "eve%22%7D%2C%7B%22x%22%3A1", "rig.1", "%3C%2Fscript%3E%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E%2F..%252f")
	named := 0
	for target := range recorded {
		w := get(h, escaped.Replace(target))
		if w.Code != http.StatusOK {
			t.Errorf("%s: status %d: %s", escaped.Replace(target), w.Code, w.Body)
		}
		if got := w.Header().Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s may be taken for anything", target)
		}
		body := w.Body.String()
		if strings.ContainsAny(body, "<>") {
			t.Errorf("%s: %s", target, body)
		}
		for line := range strings.Lines(body) {
			var v any
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Errorf("%s: %v", target, err)
			}
			if text := fmt.Sprint(v); strings.Contains(text, name) {
				named++
			}
		}
	}
	if named < 4 {
		t.Errorf("the worker is in %d answers", named)
	}
}

// A rate since the first share is one of a second at least.
func TestRateSinceJustNow(t *testing.T) {
	t.Parallel()
	s := shaped(t)
	id := s.connect(t, noon, 9, "carl", "x", "")
	s.mine(t, share.Share{UserID: 9, WorkerID: id, Time: noon.Unix(), Status: share.StatusAccept, Difficulty: 10})
	if w := get(s.Handler(), "/users/carl"); w.Code != http.StatusOK || strings.Count(w.Body.String(), `"hashrate7d":"0"`) != 2 {
		t.Errorf("first share just now: %s", w.Body)
	}
	for _, first := range []int64{noon.Unix(), noon.Unix() + 5} {
		if got := covered(noon, noon.Add(-time.Hour), first); got != 1 {
			t.Errorf("since %d, at %d: %v seconds", first, noon.Unix(), got)
		}
	}
	if got := covered(noon, noon.Add(-time.Hour), noon.Unix()-90); got != 90 {
		t.Errorf("since 90 seconds: %v", got)
	}
}

func TestLiveStats(t *testing.T) {
	t.Parallel()
	s := shaped(t)
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	defer s.hub.stop()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+nompLive, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if got := answer.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %q", got)
	}
	lines := bufio.NewScanner(answer.Body)
	next := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		return lines.Text()
	}
	want := strings.TrimSpace(get(s.Handler(), "/api/stats").Body.String())
	if got := next(); got != "data: "+want {
		t.Errorf("event is %s", got)
	}
	if got := next(); got != "" {
		t.Errorf("event goes on with %s", got)
	}
	id := s.connect(t, noon, 9, "carl", "x", "")
	s.mine(t, share.Share{UserID: 9, WorkerID: id, Time: noon.Unix(), Status: share.StatusAccept, Difficulty: 10})
	s.poolCounts, s.workerOrders = newOrders[counts](), newOrders[listed]()
	s.hub.turn(nil)
	if got := next(); !strings.Contains(got, `"carl.x"`) {
		t.Errorf("the second event is %s", got)
	}
}

// The statistics of all workers are pushed to fewer than other events are.
func TestLiveStatsAreBounded(t *testing.T) {
	t.Parallel()
	s := shaped(t)
	gone, leave := context.WithCancel(t.Context())
	heard := make(chan struct{}, mostNompListeners)
	var listening sync.WaitGroup
	for range mostNompListeners {
		listening.Go(func() {
			r := httptest.NewRequestWithContext(gone, http.MethodGet, nompLive, nil)
			s.Handler().ServeHTTP(&hearing{httptest.NewRecorder(), heard}, r)
		})
	}
	for range mostNompListeners {
		<-heard
	}
	if w := get(s.Handler(), nompLive); w.Code != http.StatusServiceUnavailable {
		t.Errorf("one more has %d", w.Code)
	}
	leave()
	listening.Wait()
	ended, end := context.WithCancel(t.Context())
	end()
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(ended, http.MethodGet, nompLive, nil))
	if w.Code != http.StatusOK {
		t.Errorf("%d once all have left", w.Code)
	}
}

func TestSuffixes(t *testing.T) {
	t.Parallel()
	for n, want := range map[float64]string{
		0: "0", 999.4: "999", 1000: "1K", 1480: "1.48K", 999_499: "999K", 999_500: "1M", 1.71e12: "1.71T", 439e9: "439G", 8.6e20: "860E", 1e25: "1e+04Z",
	} {
		if got := suffixed(n).String(); got != want {
			t.Errorf("%v is %s, want %s", n, got, want)
		}
	}
	for n, want := range map[float64]string{0: "0.00 KH", 1234567: "1.23 MH", 5e11: "500.00 GH", 1e19: "10000.00 PH"} {
		if got := readable(n); got != want {
			t.Errorf("%v is %s, want %s", n, got, want)
		}
	}
}
