package statshttpd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"btcpool/internal/httpapi"
	"btcpool/internal/retry"
)

// Server-sent events: what pages show, pushed. Each tick an answer that somebody listens to is made once, for all who
// do. These come in crowds, one after the other: thousands at once would keep all others waiting.
const (
	eventInterval = 5 * time.Second
	eventWrite    = 10 * time.Second // for a listener to take one
	maxTopics     = 4                // of one listener
	crowdSize     = 256              // listeners, more only when all crowds are full
	crowds        = 40
	crowdPause    = 50 * time.Millisecond // between two
)

var errTooManyListeners = httpapi.Errorf(http.StatusServiceUnavailable, "unavailable", "too many listen to events, ask again later")

// topic is something that can be listened to: the pool, blocks, one user or one worker.
type topic struct{ kind, user, worker string }

// hub gives events to those who listen. It is safe for concurrent use.
type hub struct {
	mu      sync.Mutex
	ticks   [crowds]chan struct{} // of each crowd, closed at its next tick
	members [crowds]int           // who listen, by crowd
	frames  map[topic][]byte
	stopped bool
}

func newHub() *hub {
	h := &hub{frames: make(map[topic][]byte)}
	for i := range h.ticks {
		h.ticks[i] = make(chan struct{})
	}
	return h
}

// join adds a listener to a crowd, the first that has room or else the smallest, unless there are most already; leave
// takes it out of that.
func (h *hub) join(most int) (crowd int, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := 0
	for i, n := range h.members {
		if all += n; h.members[crowd] >= crowdSize && n < h.members[crowd] {
			crowd = i
		}
	}
	if all >= most {
		return 0, false
	}
	h.members[crowd]++
	return crowd, true
}

func (h *hub) leave(crowd int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.members[crowd]--
}

// turn begins a tick, crowd by crowd as long as pause, which is called between two, returns true: what was made for the
// tick before is not said again.
func (h *hub) turn(pause func() bool) {
	for crowd := range crowds {
		h.mu.Lock()
		if crowd == 0 {
			clear(h.frames)
		}
		close(h.ticks[crowd])
		h.ticks[crowd] = make(chan struct{})
		between := h.members[crowd] > 0 && slices.ContainsFunc(h.members[crowd+1:], func(n int) bool { return n > 0 })
		h.mu.Unlock()
		if between && !pause() {
			return
		}
	}
}

// stop ends all listening.
func (h *hub) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.stopped {
		h.stopped = true
		for _, tick := range h.ticks {
			close(tick)
		}
	}
}

// next returns what is closed at the next tick of a crowd, nil when there will be none.
func (h *hub) next(crowd int) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return nil
	}
	return h.ticks[crowd]
}

// frame returns the event of t, which is made by how when nobody has asked for it since the tick.
func (h *hub) frame(t topic, how func() []byte) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	made, ok := h.frames[t]
	if !ok {
		made = how()
		h.frames[t] = made
	}
	return made
}

// event is an event as it is sent, whose name may be empty; data is JSON, which has no line breaks.
func event(name string, data any) []byte {
	var b bytes.Buffer
	if name != "" {
		b.WriteString("event: " + name + "\n")
	}
	b.WriteString("data: ")
	if err := json.NewEncoder(&b).Encode(data); err != nil {
		return nil
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// made returns the event of a topic, empty when there is nothing to say.
func (s *Service) made(t topic) []byte {
	var answer any
	var err error
	switch t.kind {
	case "pool":
		answer, err = s.pool()
	case "user":
		answer, err = s.oneUser(t.user)
	case "worker":
		answer, err = s.oneWorker(t.user, t.worker)
	case nompKind:
		if answer, err = s.nompStats(); err != nil || !s.replayed.Load() {
			return nil
		}
		return event("", answer)
	case "blocks":
		l := s.ledger.Load()
		if l == nil || l.Last == nil {
			return nil
		}
		answer = s.answerOfBlock(*l.Last)
	}
	if known, ok := errors.AsType[*httpapi.Error](err); ok {
		return event("gone", map[string]string{"kind": t.kind, "message": known.Message})
	}
	name, _ := strings.CutSuffix(t.kind, "s")
	return event(name, answer)
}

// topics reads what a request wants to listen to: the pool and blocks unless it names a user or a worker.
func topics(q *httpapi.Query) ([]topic, error) {
	user := q.Text("user", "", maxNameBytes)
	worker := q.Text("worker", "", maxNameBytes)
	all := []topic{{kind: "pool"}, {kind: "blocks"}}
	if worker != "" && user == "" {
		q.Failf("worker is of no use without user")
	}
	if user != "" {
		all = append(all, topic{kind: "user", user: user})
	}
	if worker != "" {
		all = append(all, topic{kind: "worker", user: user, worker: worker})
	}
	return all, q.Done()
}

// serveEvents answers /events.
func (s *Service) serveEvents(w http.ResponseWriter, r *http.Request) {
	all, err := topics(httpapi.ParseQuery(r.URL.RawQuery, "invalid_parameter"))
	if known, ok := errors.AsType[*httpapi.Error](err); ok {
		httpapi.Refuse(w, known)
		return
	}
	s.stream(w, r, all)
}

// stream sends the events of topics until the listener or the service goes.
func (s *Service) stream(w http.ResponseWriter, r *http.Request, all []topic) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		httpapi.Refuse(w, errMethod)
		return
	}
	crowd, ok := s.hub.join(min(s.cfg.MaxEventClients, s.cfg.MaxConnections-s.cfg.MaxConnections/8))
	if !ok {
		httpapi.Refuse(w, errTooManyListeners)
		return
	}
	defer s.hub.leave(crowd)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold them back
	control := http.NewResponseController(w)
	sent := make(map[topic][]byte, maxTopics)
	for next := s.hub.next(crowd); next != nil; next = s.hub.next(crowd) {
		// A listener that does not take what it is sent is given up: it must not cost memory.
		_ = control.SetWriteDeadline(time.Now().Add(eventWrite)) // not every writer of tests has one
		said := false
		for _, t := range all {
			frame := s.hub.frame(t, func() []byte { return s.made(t) })
			if bytes.Equal(frame, sent[t]) {
				continue
			}
			sent[t] = frame
			if _, err := w.Write(frame); err != nil {
				return
			}
			said = true
		}
		if !said {
			if _, err := w.Write([]byte(":\n\n")); err != nil { // so that whoever is between does not think that we are gone
				return
			}
		}
		if err := control.Flush(); err != nil {
			return
		}
		select {
		case <-next:
		case <-r.Context().Done():
			return
		}
	}
}

// turnEvents makes a tick again and again until ctx ends: each interval, and when blocks have changed.
func (s *Service) turnEvents(ctx context.Context) {
	defer s.hub.stop()
	const look = time.Second
	last, seen := time.Now(), s.ledger.Load()
	for retry.Sleep(ctx, look) {
		l := s.ledger.Load()
		if time.Since(last) < eventInterval && !newsOfBlocks(seen, l) {
			continue
		}
		last, seen = time.Now(), l
		s.hub.turn(func() bool { return retry.Sleep(ctx, crowdPause) })
	}
}

// newsOfBlocks tells whether the newest block, or what became of some, has changed.
func newsOfBlocks(a, b *ledger) bool {
	if a == nil || b == nil {
		return a != b
	}
	return !sameBlock(a.Last, b.Last) || !maps.Equal(a.Counts, b.Counts)
}
