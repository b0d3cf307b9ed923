package statshttpd

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"btcpool/internal/httpapi"
	"btcpool/internal/share"
)

// The answers at btcpool's addresses, in btcpool's format: status 200 always, errors as err_no, work in shares of
// difficulty 1, arrays by span 1m, 5m, 15m, 1h. Places that btcpool always leaves 0 are 0 here too, and unlike there an
// answer is always valid JSON.

var (
	invalidArgs  = httpapi.Legacy{ErrNo: 1, ErrMsg: "invalid args"}
	initializing = httpapi.Legacy{ErrNo: 2, ErrMsg: "service is initializing..."}
)

type legacyDetail map[share.Status]uint64

// legacySums are the figures of one window.
type legacySums struct {
	Accept       [4]uint64       `json:"accept"`
	Stale        [4]uint64       `json:"stale"`
	Reject       [4]uint64       `json:"reject"`
	RejectDetail [4]legacyDetail `json:"reject_detail"`
	AcceptCount  uint64          `json:"accept_count"`
}

type legacyWorker struct {
	legacySums
	LastShareIP   string `json:"last_share_ip"`
	LastShareTime int64  `json:"last_share_time"`
	Workers       *int   `json:"workers,omitempty"` // of a user
}

func (s *Service) legacy(answer func(form url.Values) httpapi.Legacy) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/json")
		w.Header().Set("Cache-Control", "no-store")
		out := invalidArgs
		if form, err := httpapi.LegacyForm(w, r); err == nil {
			out = answer(form)
		}
		_ = json.NewEncoder(w).Encode(out) // the requester may be gone
	})
}

func (s *Service) poolStatus(url.Values) httpapi.Legacy {
	if !s.replayed.Load() {
		return initializing
	}
	now := s.now()
	v := s.poolView(now)
	s.board.mu.RLock()
	defer s.board.mu.RUnlock()
	return httpapi.Legacy{Data: map[string]any{
		"uptime":   httpapi.LegacyUptime(now.Sub(s.started)),
		"request":  s.requests.Load() + 1,
		"repbytes": s.sent.Load(),
		"pool": struct {
			legacySums
			Workers int `json:"workers"`
			Users   int `json:"users"`
		}{s.board.pool.legacySums(now.Unix()), v.Known, v.KnownUsers},
	}}
}

func (s *Service) flushDBTime(url.Values) httpapi.Legacy {
	return httpapi.Legacy{Data: map[string]int64{"flush_db_time": s.flushed.Load()}}
}

func (s *Service) workerStatus(form url.Values) httpapi.Legacy {
	if !s.replayed.Load() {
		return initializing
	}
	user, err := strconv.ParseInt(form.Get("user_id"), 10, 32)
	ids := strings.Split(form.Get("worker_id"), ",")
	if err != nil {
		return invalidArgs
	}
	now := s.now().Unix()
	answers := make(map[string]*legacyWorker, len(ids))
	s.board.mu.RLock()
	defer s.board.mu.RUnlock()
	for _, text := range ids {
		id, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return invalidArgs
		}
		if name := strconv.FormatInt(id, 10); answers[name] == nil { // asking twice costs nothing
			answers[name] = s.board.legacyWorker(workerKey{int32(user), id}, now)
		}
	}
	if merge := form.Get("is_merge"); strings.HasPrefix(merge, "t") || strings.HasPrefix(merge, "T") {
		return httpapi.Legacy{Data: map[string]*legacyWorker{"0": merged(answers)}}
	}
	return httpapi.Legacy{Data: answers}
}

// legacyWorker returns the figures of a worker, or of a user when the worker's id is 0; zeros when nobody knows it.
// b.mu is held.
func (b *board) legacyWorker(k workerKey, now int64) *legacyWorker {
	a := &legacyWorker{}
	var w *window
	if k.WorkerID == 0 {
		n := 0
		if u := b.users[k.UserID]; u != nil {
			w, n = &u.window, u.active(time.Unix(now, 0))
		}
		a.Workers = &n
	} else if known := b.workers[k]; known != nil {
		w = &known.window
	}
	a.legacySums = w.legacySums(now)
	a.LastShareIP = ipText(netip.Addr{})
	if w != nil {
		a.LastShareIP, a.LastShareTime = ipText(w.lastIP), w.last
	}
	return a
}

// legacySums works on a nil window too.
func (w *window) legacySums(now int64) legacySums {
	a := legacySums{RejectDetail: [4]legacyDetail{{}, {}, {}, {}}}
	if w == nil {
		return a
	}
	a.AcceptCount = w.accepted
	for i, s := range []span{fiveMinutes, quarterHour, hour} {
		a.Accept[i+1] = w.acceptedSum(now, s).Work.Difficulty()
	}
	for i, s := range []span{quarterHour, hour} {
		a.Stale[i+2] = w.staleSum(now, s).Work.Difficulty()
		total, reasons := w.rejectedSum(now, s)
		a.Reject[i+2] = total.Work.Difficulty()
		for status, of := range reasons {
			a.RejectDetail[i+2][status] = of.Work.Difficulty()
		}
	}
	return a
}

// merged adds up answers, but not their details.
func merged(answers map[string]*legacyWorker) *legacyWorker {
	sum := &legacyWorker{legacySums: (*window)(nil).legacySums(0), LastShareIP: ipText(netip.Addr{})}
	for _, a := range answers {
		for i := range sum.Accept {
			sum.Accept[i] += a.Accept[i]
			sum.Stale[i] += a.Stale[i]
			sum.Reject[i] += a.Reject[i]
		}
		sum.AcceptCount += a.AcceptCount
		if a.LastShareTime > sum.LastShareTime {
			sum.LastShareTime, sum.LastShareIP = a.LastShareTime, a.LastShareIP
		}
	}
	return sum
}
