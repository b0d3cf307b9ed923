package blkmaker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"btcpool/internal/job"
)

const (
	// keepFor is how long jobs, and templates since a job last named them, are
	// kept: a job can be solved for 5 minutes, and may be made of a template
	// that is some minutes old.
	keepFor = 15 * time.Minute
	// Beyond these the oldest go early. A day's worth of different transactions
	// fits several times.
	maxJobs             = 10_000
	maxTemplates        = 10_000
	maxTransactionBytes = 2 << 30
)

// errUnknown says that a job or its template is not in the cache.
var errUnknown = errors.New("unknown")

// cache holds jobs and the transactions of templates. Templates that follow
// each other are nearly equal, so each transaction is held once.
type cache struct {
	metrics *metrics

	mu           sync.Mutex
	jobs         map[job.ID]*cachedJob
	templates    map[string]*template // by RawGBT.Hash
	transactions map[string]*transaction
	bytes        int           // of transactions
	changed      chan struct{} // closed and replaced when something came
}

type cachedJob struct {
	*job.StratumJob
	seen time.Time
}

type template struct {
	transactions []*transaction
	seen         time.Time // or named by a job
}

// transaction is one in raw form. Its data never change.
type transaction struct {
	data string
	refs int // templates that have it
}

func newCache(m *metrics) *cache {
	return &cache{
		metrics:      m,
		jobs:         make(map[job.ID]*cachedJob),
		templates:    make(map[string]*template),
		transactions: make(map[string]*transaction),
		changed:      make(chan struct{}),
	}
}

// addJob keeps a job that was sent at the time sent.
func (c *cache) addJob(j *job.StratumJob, sent, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := earlier(sent, now)
	c.jobs[j.ID] = &cachedJob{j, seen}
	if t := c.templates[j.GBTHash]; t != nil && t.seen.Before(seen) {
		t.seen = seen
	}
	c.tidy(now)
}

// addTemplate keeps the raw transactions of the template with that hash.
func (c *cache) addTemplate(hash string, raw [][]byte, sent, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := earlier(sent, now)
	if t := c.templates[hash]; t != nil {
		if t.seen.Before(seen) {
			t.seen = seen
		}
		return
	}
	t := &template{transactions: make([]*transaction, len(raw)), seen: seen}
	for i, data := range raw {
		tx := c.transactions[string(data)]
		if tx == nil {
			tx = &transaction{data: string(data)}
			c.transactions[tx.data] = tx
			c.bytes += len(tx.data)
		}
		tx.refs++
		t.transactions[i] = tx
	}
	c.templates[hash] = t
	c.tidy(now)
}

// tidy drops what is too old or too much, and wakes those who wait.
func (c *cache) tidy(now time.Time) {
	oldest := now.Add(-keepFor)
	for id, j := range c.jobs {
		if j.seen.Before(oldest) {
			delete(c.jobs, id)
		}
	}
	for hash, t := range c.templates {
		if t.seen.Before(oldest) {
			c.drop(hash)
		}
	}
	for len(c.jobs) > maxJobs {
		delete(c.jobs, oldestOf(c.jobs, func(j *cachedJob) time.Time { return j.seen }))
	}
	for len(c.templates) > maxTemplates || c.bytes > maxTransactionBytes && len(c.templates) > 1 {
		c.drop(oldestOf(c.templates, func(t *template) time.Time { return t.seen }))
	}
	c.metrics.jobs.Set(float64(len(c.jobs)))
	c.metrics.templates.Set(float64(len(c.templates)))
	c.metrics.templateBytes.Set(float64(c.bytes))
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *cache) drop(hash string) {
	for _, tx := range c.templates[hash].transactions {
		if tx.refs--; tx.refs == 0 {
			delete(c.transactions, tx.data)
			c.bytes -= len(tx.data)
		}
	}
	delete(c.templates, hash)
}

// find returns a job and the transactions of its template. The error wraps
// errUnknown and says what is missing; changed is closed when there is a
// reason to look again.
func (c *cache) find(id job.ID) (j *job.StratumJob, txs []*transaction, changed <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cached := c.jobs[id]
	if cached == nil {
		return nil, nil, c.changed, fmt.Errorf("job %d: %w", id, errUnknown)
	}
	t := c.templates[cached.GBTHash]
	if t == nil {
		return nil, nil, c.changed, fmt.Errorf("template %s of job %d: %w", cached.GBTHash, id, errUnknown)
	}
	return cached.StratumJob, t.transactions, nil, nil
}

// await is find for what may still come: it looks until stop is closed, and
// then once more.
func (c *cache) await(ctx context.Context, id job.ID, stop <-chan struct{}) (*job.StratumJob, []*transaction, error) {
	for last := false; ; {
		j, txs, changed, err := c.find(id)
		if err == nil || last {
			return j, txs, err
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-stop:
			last = true
		case <-changed:
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// oldestOf returns the key of the value that was seen first.
func oldestOf[K comparable, V any](m map[K]V, seen func(V) time.Time) K {
	var oldest K
	var at time.Time
	for k, v := range m {
		if t := seen(v); at.IsZero() || t.Before(at) {
			oldest, at = k, t
		}
	}
	return oldest
}
