//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"btcpool/test/integration/rig"
)

// dumpPage returns the text of a page as Chromium shows it, after some seconds of its time. That does not go on while
// there is an answer to wait for: a page that waited for events by then would never be at rest.
func dumpPage(ctx context.Context, t *testing.T, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	page, err := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(),
		"--virtual-time-budget=8000", "--dump-dom", address).Output()
	if err != nil {
		t.Fatalf("chromium: %v (run test/install.sh)", err)
	}
	return string(page)
}

// fakeStatshttpd is one whose answers are its golden files, changed. The page is the real one.
type fakeStatshttpd struct {
	web, data string
	pool      map[string]any // over the golden answer
	blocks    bool           // the database answers
	gone      bool           // nothing is answered after the first time
	asked     atomic.Int32   // for the pool
}

func (f *fakeStatshttpd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := func(name string, change map[string]any) {
		text, err := os.ReadFile(filepath.Join(f.data, name))
		var body map[string]any
		if err == nil {
			err = json.Unmarshal(text, &body)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		for key, value := range change {
			body[key] = value
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(body)
	}
	path := r.URL.Path
	if path == "/api/v1/pool" {
		f.asked.Add(1)
	}
	switch {
	case strings.HasPrefix(path, "/api/") && f.asked.Load() > 1 && f.gone, path == "/api/v1/blocks" && !f.blocks:
		http.Error(w, "away", http.StatusServiceUnavailable)
	case path == "/api/v1/pool":
		answer("pool.json", f.pool)
	case path == "/api/v1/workers":
		answer("workers.json", nil)
	case path == "/api/v1/blocks":
		answer("blocks.json", nil)
	case strings.HasPrefix(path, "/api/"):
		http.NotFound(w, r)
	case path == "/":
		http.ServeFile(w, r, filepath.Join(f.web, "index.html"))
	case path == "/assets/settings.js": // as it is where nothing is configured
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = w.Write([]byte(`export default {"name":"","user_example":"","welcome":{"en":"","zh":""},"links":[],"explorers":{}};`))
	case path == "/assets/theme.css":
		w.Header().Set("Content-Type", "text/css")
	default:
		http.ServeFile(w, r, filepath.Join(f.web, filepath.Base(path)))
	}
}

// TestPageTellsNoLies looks at the dashboard while something is away, not known or old.
func TestPageTellsNoLies(t *testing.T) {
	root := rig.Root(t)
	null := map[string]any{"1m": nil, "5m": nil, "15m": nil, "1h": nil, "1d": nil}
	places := []map[string]any{
		{"url": "stratum+tcp://:3333", "tls": false, "note": "for ASICs"}, {"url": "stratum+ssl://pool.example.org:3334", "tls": true, "note": ""},
	}
	network := map[string]any{"height": 946123, "difficulty": 1e14, "hashrate": 7e20, "job_age_seconds": 11}
	stale := map[string]any{"height": 946123, "difficulty": 1e14, "hashrate": 7e20, "job_age_seconds": 725}
	for _, test := range []struct {
		name    string
		pool    map[string]any
		without bool // the database
		gone    bool
		state   string
		link    string            // what the badge says
		texts   map[string]string // by id
		old     bool              // figures are dimmed
	}{
		{
			name: "all is well", pool: map[string]any{"chain": "signet", "stratum": places, "network": network}, state: "live", link: "^Live$",
			texts: map[string]string{
				"chain": "^signet$", "pool-cards": "Chain height +946,123 ", "hashrate": `^Pool hashrate +[0-9.]+ +GH/s`,
				"places": `stratum\+tcp://127\.0\.0\.1:3333.*for ASICs.*stratum\+ssl://pool\.example\.org:3334.*TLS`,
			},
		},
		{
			name: "starting", pool: map[string]any{"starting": true, "network": network}, state: "wait", link: "^Reading history$",
			texts: map[string]string{
				"hashrate": "^Pool hashrate +– +Not known yet +15 min +– +1 hour +– ", "pool-cards": "^Workers online +– +Shares, last hour +– +Round effort +– ",
			},
		},
		{
			name: "Kafka was never there", pool: map[string]any{"away": []string{"kafka"}, "shares_as_of": nil, "hashrate": null}, state: "wait",
			link: "Kafka does not answer: nothing is known yet", old: true,
			texts: map[string]string{
				"hashrate": "^Pool hashrate +– ", "pool-cards": "^Workers online +– +Shares, last hour +– ", "connect-title": "^Connect a miner$",
			},
		},
		{
			name: "Kafka is away", pool: map[string]any{"away": []string{"kafka"}, "shares_as_of": "2026-03-14T11:28:00Z"}, state: "wait",
			link: "Kafka does not answer: figures of [0-9]{2}:28", old: true, texts: map[string]string{"hashrate": `^Pool hashrate +[0-9.]+ `},
		},
		{
			name: "the database is away", pool: map[string]any{"away": []string{"database"}, "blocks": nil, "round": nil, "last_block": nil}, without: true,
			state: "wait", link: "Database does not answer", texts: map[string]string{
				"pool-cards": "Round effort +– .*Blocks found +– +the database does not answer", "hashrate": `^Pool hashrate +[0-9.]+ `,
			},
		},
		{name: "the pool has stopped", pool: map[string]any{"network": network}, gone: true, state: "lost", link: "Connection lost, figures of [0-9]{2}:00", old: true},
		{name: "no new work", pool: map[string]any{"network": stale}, state: "wait", link: "No new work from the node for 12 min"},
		{
			name: "the first minute", pool: map[string]any{"network": network, "hashrate": null, "hashrate_error": null, "workers_online": 0, "workers_waiting": 3},
			state: "live", link: "^Live$",
			texts: map[string]string{"hashrate": "^Pool hashrate +– +Measuring.* 15 min +measuring ", "pool-cards": "3 without a share yet"},
		},
		{
			name: "before the first share", pool: map[string]any{"network": network, "hashrate": null, "hashrate_error": null, "workers_online": 0, "workers_known": 0, "workers_waiting": 1},
			state: "live", link: "^Live$",
			texts: map[string]string{"hashrate": "^Pool hashrate +– +Waiting for the first share +15 min +– ", "connect-title": "^Connect a miner$"},
		},
		{
			name: "far beyond a block", pool: map[string]any{"network": network, "round": map[string]any{"since": nil, "difficulty": 1e12, "effort": 1468028.63}},
			state: "live", link: "^Live$", texts: map[string]string{"pool-cards": "Round effort +1.47.M ×"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(&fakeStatshttpd{
				web: filepath.Join(root, "statshttpd", "web"), data: filepath.Join(root, "statshttpd", "testdata"),
				pool: test.pool, blocks: !test.without, gone: test.gone,
			})
			defer server.Close()
			page := dumpPage(t.Context(), t, server.URL+"/")
			if got := attribute(page, "link", "data-state"); got != test.state {
				t.Errorf("the badge is %q, want %q", got, test.state)
			}
			texts := map[string]string{"link-text": test.link}
			for id, want := range test.texts {
				texts[id] = want
			}
			for id, want := range texts {
				if got := textOf(page, id); !regexp.MustCompile(want).MatchString(got) {
					t.Errorf("%s is %q, want %q", id, got, want)
				}
			}
			if old := strings.Contains(regexp.MustCompile(`<body[^>]*>`).FindString(page), "old"); old != test.old {
				t.Errorf("figures are dimmed: %t", old)
			}
			if away := strings.Contains(textOf(page, "blocks"), "The database does not answer"); away != test.without {
				t.Errorf("of blocks the page says that the database is away: %t", away)
			}
		})
	}
}

// element returns the tag with that id, and what is in it up to the end of an element of its kind.
func element(page, id string) (tag, text string) {
	m := regexp.MustCompile(fmt.Sprintf(`(?s)<(\w+)([^>]*\bid="%s"[^>]*)>`, id)).FindStringSubmatchIndex(page)
	if m == nil {
		return "", ""
	}
	rest := page[m[1]:]
	end := strings.Index(rest, "</"+page[m[2]:m[3]]+">")
	return page[m[4]:m[5]], rest[:max(end, 0)]
}

func textOf(page, id string) string {
	_, text := element(page, id)
	return strings.TrimSpace(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(text, " "))
}

// attribute returns an attribute of the element with that id, "no" when it has none.
func attribute(page, id, name string) string {
	tag, _ := element(page, id)
	if m := regexp.MustCompile(name + `="([^"]*)"`).FindStringSubmatch(tag); m != nil {
		return m[1]
	}
	return "no"
}
