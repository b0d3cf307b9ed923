package miner

import (
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"math"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"btcpool/internal/stratum"
)

// Report says what a Miner has done so far.
type Report struct {
	URL         string         `json:"url"`
	Seconds     float64        `json:"duration_s"`
	Connections int            `json:"connections"` // asked for
	Threads     int            `json:"threads"`
	Open        int64          `json:"open"`       // authorized at this moment
	Authorized  int64          `json:"authorized"` // sessions authorized so far
	Reconnects  int64          `json:"reconnects"` // attempts
	Failures    []FailureCount `json:"failures,omitempty"`

	Latency Latencies `json:"latency_ms"`

	Submitted       int64            `json:"submitted"` // the sum of the next three
	Accepted        int64            `json:"accepted"`
	Rejected        int64            `json:"rejected"`
	Unanswered      int64            `json:"unanswered"` // still without an answer, or for ever
	InvalidAccepted int64            `json:"invalid_accepted"`
	RejectedBy      []RejectionCount `json:"rejected_by,omitempty"`

	Difficulty float64 `json:"difficulty"`   // the newest job's
	Missed     int64   `json:"missed"`       // shares that Config.Rate asked for and that were not submitted
	Hashrate   float64 `json:"hashrate_hs"`  // hashes tried a second
	HashPower  float64 `json:"hashpower_hs"` // the same while hashing, of all threads: what could be tried
	Problem    string  `json:"problem,omitempty"`

	BytesIn  int64 `json:"bytes_in"`
	BytesOut int64 `json:"bytes_out"`
}

// Latencies of the steps of a session, of answers to shares, and of notifications: from the first connection that had a
// job to each of the connections that were up then.
type Latencies struct {
	Connect   Percentiles `json:"connect"`
	Subscribe Percentiles `json:"subscribe"`
	Authorize Percentiles `json:"authorize"`
	Notify    Percentiles `json:"notify"`
	Submit    Percentiles `json:"submit"`
}

// RejectionCount counts shares refused with one code and text. Texts beyond the first few dozen are counted as "other".
type RejectionCount struct {
	Code  int    `json:"code"`
	Text  string `json:"text"`
	Count int64  `json:"count"`
}

// FailureCount counts connections that ended for one reason, or could not be made.
type FailureCount struct {
	Text  string `json:"text"`
	Count int64  `json:"count"`
}

// A pool must not fill our memory with ever new texts, nor jobs.
const (
	maxKinds    = 64
	recentJobs  = 64
	otherReason = "other"
)

type rejection struct {
	code int
	text string
}

// stats counts for all connections; its methods may be called at the same time.
type stats struct {
	steps          [steps]histogram
	notify, submit histogram

	open, authorized, reconnects            atomic.Int64
	accepted, rejected                      atomic.Int64
	submitted, invalidAccepted, missed      atomic.Int64
	bytesIn, bytesOut, hashes, hashingNanos atomic.Int64
	difficulty                              atomic.Uint64 // bits of a float64

	mu         sync.Mutex // guards what follows
	started    time.Time
	ended      time.Time
	rejections map[rejection]int64
	failures   map[string]int64
	seed       maphash.Seed
	firstSeen  map[fingerprint]time.Time
	seenOrder  []fingerprint // the keys of firstSeen, oldest first
}

func newStats() *stats {
	return &stats{
		rejections: make(map[rejection]int64),
		failures:   make(map[string]int64),
		seed:       maphash.MakeSeed(),
		firstSeen:  make(map[fingerprint]time.Time),
	}
}

// note keeps the present time in one of the fields that mu guards.
func (s *stats) note(at *time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*at = time.Now()
}

func (s *stats) bytes(in, out int) {
	s.bytesIn.Add(int64(in))
	s.bytesOut.Add(int64(out))
}

func (s *stats) hashed(n int, took time.Duration) {
	s.hashes.Add(int64(n))
	s.hashingNanos.Add(int64(took))
}

func (s *stats) result(r *Result) {
	switch r.Outcome {
	case Unanswered:
		return // as it has been since its submission
	case Accepted:
		s.accepted.Add(1)
		if r.Fault != NoFault {
			s.invalidAccepted.Add(1)
		}
	case Rejected:
		s.rejected.Add(1)
		s.mu.Lock()
		key := rejection{r.Code, r.Text}
		if _, known := s.rejections[key]; !known && len(s.rejections) >= maxKinds {
			key = rejection{text: otherReason}
		}
		s.rejections[key]++
		s.mu.Unlock()
	}
	s.submit.add(r.Latency)
}

func (s *stats) failed(err error) {
	text := err.Error()
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		text = fmt.Sprintf("%s: %s", op.Op, op.Err) // without the addresses, which make every text another one
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.failures[text]; !known && len(s.failures) >= maxKinds {
		text = otherReason
	}
	s.failures[text]++
}

// fingerprint tells jobs apart by their content: many pools number jobs per connection.
type fingerprint uint64

func (s *stats) fingerprint(j *stratum.Job) fingerprint {
	var h maphash.Hash
	h.SetSeed(s.seed)
	h.Write(j.PrevHash[:])
	h.Write(j.Coinbase1)
	h.Write(j.Coinbase2)
	for i := range j.Branch {
		h.Write(j.Branch[i][:])
	}
	maphash.WriteComparable(&h, [...]uint32{j.Version, j.Bits, j.Time})
	return fingerprint(h.Sum64())
}

// notified records how long after the first connection this one got the job. A connection that was not up when the job
// first came got it late for that reason, and one that gets it again got it in time before: neither counts.
func (s *stats) notified(l *link, job *Job, at time.Time) {
	s.difficulty.Store(math.Float64bits(job.Difficulty))
	key := s.fingerprint(job.Job)
	if key == l.last {
		return
	}
	l.last = key
	if first := s.first(key, at); !l.authorized.After(first) {
		s.notify.add(at.Sub(first))
	}
}

func (s *stats) first(key fingerprint, at time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first, known := s.firstSeen[key]; known {
		return first
	}
	if len(s.seenOrder) >= recentJobs {
		delete(s.firstSeen, s.seenOrder[0])
		s.seenOrder = append(s.seenOrder[:0], s.seenOrder[1:]...)
	}
	s.firstSeen[key] = at
	s.seenOrder = append(s.seenOrder, key)
	return at
}

// Report may be called at any time, before, during and after Run.
func (m *Miner) Report() Report {
	s := m.stats
	r := Report{
		URL:         m.cfg.URL,
		Connections: m.cfg.Conns,
		Threads:     m.cfg.Threads,
		Open:        s.open.Load(),
		Authorized:  s.authorized.Load(),
		Reconnects:  s.reconnects.Load(),
		Latency: Latencies{
			Connect:   s.steps[Connect].percentiles(),
			Subscribe: s.steps[Subscribe].percentiles(),
			Authorize: s.steps[Authorize].percentiles(),
			Notify:    s.notify.percentiles(),
			Submit:    s.submit.percentiles(),
		},
		Accepted:        s.accepted.Load(),
		Rejected:        s.rejected.Load(),
		InvalidAccepted: s.invalidAccepted.Load(),
		Difficulty:      math.Float64frombits(s.difficulty.Load()),
		Missed:          s.missed.Load(),
		BytesIn:         s.bytesIn.Load(),
		BytesOut:        s.bytesOut.Load(),
	}
	// Loaded after the answers, so that it is not below their sum.
	r.Submitted = s.submitted.Load()
	r.Unanswered = r.Submitted - r.Accepted - r.Rejected

	s.mu.Lock()
	if !s.started.IsZero() {
		r.Seconds = time.Since(s.started).Seconds()
		if !s.ended.IsZero() {
			r.Seconds = s.ended.Sub(s.started).Seconds()
		}
	}
	for key, count := range s.rejections {
		r.RejectedBy = append(r.RejectedBy, RejectionCount{key.code, key.text, count})
	}
	for _, text := range slices.Sorted(maps.Keys(s.failures)) {
		r.Failures = append(r.Failures, FailureCount{text, s.failures[text]})
	}
	s.mu.Unlock()
	slices.SortFunc(r.RejectedBy, func(a, b RejectionCount) int { return int(b.Count - a.Count) })

	hashes := float64(s.hashes.Load())
	if r.Seconds > 0 {
		r.Hashrate = hashes / r.Seconds
	}
	if nanos := s.hashingNanos.Load(); nanos > 0 {
		r.HashPower = hashes / float64(nanos) * 1e9 * float64(m.cfg.Threads)
	}
	r.Problem = m.problem(&r)
	return r
}

// problem says so when the rate asked for is out of reach.
func (m *Miner) problem(r *Report) string {
	conns := min(r.Authorized, int64(m.cfg.Conns))
	need := m.cfg.Rate * float64(conns) * r.Difficulty * (1 << 32)
	switch {
	case r.HashPower > 0 && need > r.HashPower:
		return fmt.Sprintf("rate out of reach: %d connections at %g shares/s and difficulty %g need %s, this machine has %s",
			conns, m.cfg.Rate, r.Difficulty, FormatHashrate(need), FormatHashrate(r.HashPower))
	case r.Missed > r.Submitted/100:
		return fmt.Sprintf("rate not reached: %d shares were not found in time, or held back because the pool does not answer", r.Missed)
	}
	return ""
}

// FormatHashrate renders hashes a second with a unit.
func FormatHashrate(hs float64) string {
	units := [...]string{"H/s", "kH/s", "MH/s", "GH/s", "TH/s", "PH/s", "EH/s", "ZH/s"}
	i := 0
	for ; hs >= 1000 && i < len(units)-1; i++ {
		hs /= 1000
	}
	return strconv.FormatFloat(hs, 'f', 1, 64) + " " + units[i]
}
