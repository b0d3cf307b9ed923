package statshttpd

import (
	"bufio"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/share"
	"btcpool/internal/store"
)

// listener reads events of a server.
type listener struct {
	t      *testing.T
	lines  *bufio.Reader
	cancel func()
}

func listen(t *testing.T, url string) *listener {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s: %s %v", url, res.Status, res.Header)
	}
	return &listener{t, bufio.NewReader(res.Body), cancel}
}

// next returns the name and the data of the next event, empty for a sign of life.
func (l *listener) next() (name string, data map[string]any) {
	l.t.Helper()
	for {
		line, err := l.lines.ReadString('\n')
		if err != nil {
			l.t.Fatal(err)
		}
		switch field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); field {
		case "event":
			name = value
		case "data":
			if err := json.Unmarshal([]byte(value), &data); err != nil {
				l.t.Fatalf("%v: %s", err, value)
			}
		case "":
			return name, data
		}
	}
}

func (l *listener) wants(names ...string) (last map[string]any) {
	l.t.Helper()
	for _, want := range names {
		name, data := l.next()
		if name != want {
			l.t.Fatalf("event %q %v, want %q", name, data, want)
		}
		last = data
	}
	return last
}

// size is how many listen.
func (h *hub) size() (all int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.members {
		all += n
	}
	return all
}

func TestEvents(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	s.small(t)
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	t.Cleanup(s.hub.stop)
	url := srv.URL + "/api/v1/events"
	all := listen(t, url+"?user=ann&worker=rig.1")
	if worker := all.wants("pool", "block", "user", "worker"); worker["worker"] != "rig.1" {
		t.Errorf("worker is %v", worker)
	}
	pool := listen(t, url)
	if block := pool.wants("pool", "block"); block["height"] != 99.0 {
		t.Errorf("block is %v", block)
	}
	gone := listen(t, url+"?user=nobody")
	gone.wants("pool", "block", "gone")

	// What has not changed is not said again.
	s.hub.turn(nil)
	all.wants("")
	pool.wants("")
	s.mine(t, share.Share{UserID: 1, WorkerID: share.WorkerID("rig.1"), Time: noon.Unix(), Status: share.StatusAccept, Difficulty: 10})
	before := s.ledger.Load()
	if err := s.db.Load().AddBlock(t.Context(), store.Block{Hash: strings.Repeat("9", 64), Height: 107, CreatedAt: noon}); err != nil {
		t.Fatal(err)
	}
	s.look(t)
	if !newsOfBlocks(before, s.ledger.Load()) {
		t.Error("a block is no news")
	}
	s.hub.turn(nil)
	all.wants("pool", "block", "user", "worker")
	if block := pool.wants("pool", "block"); block["height"] != 107.0 || block["state"] != "submitted" {
		t.Errorf("block is %v", block)
	}
	all.cancel()
	s.hub.stop() // all others are ended
	if _, err := pool.lines.ReadByte(); err == nil {
		t.Error("events go on")
	}
}

// Of many listeners all hear what is new, one crowd after the other.
func TestEventsInCrowds(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	const listeners = 2*crowdSize + 10
	s.cfg.MaxEventClients, s.cfg.MaxConnections = listeners, 2*listeners
	gone, leave := context.WithCancel(t.Context())
	heard := make(chan struct{}, 2*listeners) // a write each
	var listening sync.WaitGroup
	for range listeners {
		listening.Go(func() {
			r := httptest.NewRequestWithContext(gone, http.MethodGet, "/api/v1/events", nil)
			s.Handler().ServeHTTP(&hearing{httptest.NewRecorder(), heard}, r)
		})
	}
	hear := func() {
		t.Helper()
		for range listeners {
			<-heard
		}
	}
	hear()
	pauses := 0
	s.mine(t, share.Share{UserID: 1, WorkerID: 5, Time: noon.Unix(), Status: share.StatusAccept, Difficulty: 10})
	s.hub.turn(func() bool {
		pauses++
		return true
	})
	hear()
	if pauses != 2 {
		t.Errorf("%d pauses", pauses)
	}
	leave()
	listening.Wait()
	if len(heard) > 0 {
		t.Errorf("%d more were written", len(heard))
	}
}

// Crowds stay of one size when listeners come and go, and are closed up before there are more of them.
func TestCrowdsUnderChurn(t *testing.T) {
	t.Parallel()
	h := newHub()
	const listeners = 8 * crowdSize
	var in []int
	join := func(n int) {
		for range n {
			crowd, ok := h.join(listeners)
			if !ok {
				t.Fatal("there is no room")
			}
			in = append(in, crowd)
		}
	}
	join(listeners)
	for range 10 { // those that came first leave, and come again
		for _, crowd := range in[:listeners/2] {
			h.leave(crowd)
		}
		in = in[listeners/2:]
		join(listeners / 2)
		if most := slices.Max(h.members[:]); most != crowdSize {
			t.Fatalf("%d are in the largest crowd, want %d", most, crowdSize)
		}
	}
	if _, ok := h.join(listeners); ok {
		t.Error("one more is taken than may listen")
	}
	for range crowds * crowdSize { // more than all crowds are for
		_, _ = h.join(math.MaxInt)
	}
	if most, least := slices.Max(h.members[:]), slices.Min(h.members[:]); most-least > 1 {
		t.Errorf("crowds of %d to %d", least, most)
	}

	h = newHub()
	h.members[3], h.members[7], h.members[8] = 1, 1, 1
	pauses := 0
	h.turn(func() bool {
		pauses++
		return true
	})
	if pauses != 2 {
		t.Errorf("%d pauses between three crowds", pauses)
	}
}

// hearing tells of each event that is written.
type hearing struct {
	*httptest.ResponseRecorder
	heard chan<- struct{}
}

func (h *hearing) Write(b []byte) (int, error) {
	h.heard <- struct{}{}
	return h.ResponseRecorder.Write(b)
}

// To listen for hours is no slow answer.
func TestEventsTakeNoTime(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	gone, leave := context.WithCancel(t.Context())
	leave()
	for path, ctx := range map[string]context.Context{"/api/v1/events": gone, "/api/v1/pool": t.Context()} {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(s.metrics.answerSeconds)
	all, err := reg.Gather()
	if err != nil || len(all) != 1 || all[0].GetMetric()[0].GetHistogram().GetSampleCount() != 1 {
		t.Errorf("%v, %v", err, all)
	}
}

func TestEventsAreBounded(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	s.cfg.MaxEventClients = 1
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	t.Cleanup(s.hub.stop)
	url := srv.URL + "/api/v1/events"
	first := listen(t, url)
	first.wants("pool")
	t.Run("HEAD", func(t *testing.T) {
		res, err := http.Head(url)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s", res.Status)
		}
	})
	for target, want := range map[string]int{url: 503, url + "?x=1": 400, url + "?worker=x": 400, url + "?user=" + strings.Repeat("x", 200): 400} {
		res, err := http.Get(target)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%.60s: %s", target, res.Status)
		}
	}
}
