package blkmaker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/job"
)

const (
	// keepHeights is how many heights are kept: a block is of use until buriedBy others are above it.
	keepHeights = 2 * buriedBy
	// maxHeightBytes bounds what is kept of one height; one that gets more, as no real one does, takes the place of
	// two.
	maxHeightBytes = 128 << 20
)

// errUnknown says that a job or its template is not in the cache.
var errUnknown = errors.New("unknown")

// cache holds the jobs and the transactions of templates of the last heights, in memory for speed and in files for the
// time after a restart.
//
// "Last" is meant by the time at which messages were sent, and not by number: a message with an absurd height costs one
// place, a chain that starts anew finds its own, and what is read again at the start displaces nothing younger.
type cache struct {
	dir     string
	log     zerolog.Logger
	metrics *metrics

	mu      sync.Mutex
	heights []*height
	next    uint64        // number of the next file
	changed chan struct{} // closed and replaced when something came
}

// height is what came for one height. Templates that follow each other are nearly equal, so each transaction is held
// once.
type height struct {
	number       int32
	file         *os.File // nil after it could not be written
	path         string
	used         time.Time // when the youngest message was sent
	bytes        int
	jobs         map[job.ID]*job.StratumJob
	templates    map[string][]uint32 // transactions by RawGBT.Hash
	transactions []string            // raw
	index        map[string]uint32   // numbers of transactions by their text
}

// openCache reads what an earlier run left in dir.
func openCache(dir string, log zerolog.Logger, m *metrics) (*cache, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	c := &cache{dir: dir, log: log, metrics: m, changed: make(chan struct{})}
	if err := c.load(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	c.update()
	return c, nil
}

// addJob keeps a job that was sent at the time sent, on disk when addJob returns.
func (c *cache) addJob(j *job.StratumJob, sent time.Time) {
	c.mu.Lock()
	h := c.height(j.Height, sent)
	if h == nil || h.jobs[j.ID] != nil {
		c.mu.Unlock()
		return
	}
	text := j.AppendTo(nil)
	h.addJob(j, len(text))
	c.write(h, appendRecord(nil, recordJob, text))
	file := h.file
	c.update()
	c.mu.Unlock()
	if file == nil {
		return
	}
	// With the job, all that came before it. What a power failure takes nevertheless, Kafka still has.
	if err := file.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		c.log.Error().Err(err).Str("file", file.Name()).Msg("job not on disk")
	}
}

// addTemplate keeps the raw transactions of the template with that hash.
func (c *cache) addTemplate(number int32, hash string, raw [][]byte, sent time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.height(number, sent)
	if h == nil {
		return
	}
	if _, ok := h.templates[hash]; ok {
		return
	}
	var records []byte
	payload := make([]byte, 0, len(hash)+4*len(raw))
	payload = append(payload, hash...)
	for _, data := range raw {
		i, ok := h.index[string(data)]
		if !ok {
			i = h.addTransaction(string(data))
			records = appendRecord(records, recordTransaction, data)
		}
		payload = binary.LittleEndian.AppendUint32(payload, i)
	}
	h.addTemplate(payload)
	c.write(h, appendRecord(records, recordTemplate, payload))
	c.update()
}

// height returns the place for a message that was sent at the time sent, nil when all places are taken by younger ones.
// Those whose time is yet to come are not to be believed, for a clock was ahead: they make way first.
func (c *cache) height(number int32, sent time.Time) *height {
	now := time.Now()
	for _, h := range c.heights {
		if h.number == number && h.bytes < maxHeightBytes {
			if h.used.Before(sent) || h.used.After(now) {
				h.used = sent
			}
			return h
		}
	}
	if len(c.heights) >= keepHeights {
		oldest := slices.MinFunc(c.heights, func(a, b *height) int {
			if doubt := a.used.After(now); doubt != b.used.After(now) {
				if doubt {
					return -1
				}
				return 1
			}
			return a.used.Compare(b.used)
		})
		if sent.Before(oldest.used) && !oldest.used.After(now) {
			return nil
		}
		c.drop(oldest)
		c.heights = slices.DeleteFunc(c.heights, func(h *height) bool { return h == oldest })
	}
	h := newHeight(number)
	h.used = sent
	h.path = c.path(c.next, number)
	c.next++
	var err error
	if h.file, err = os.OpenFile(h.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640); err != nil {
		c.failed(h, err)
	}
	c.heights = append(c.heights, h)
	return h
}

// update shows the new sizes and wakes those who wait.
func (c *cache) update() {
	jobs, templates, size := 0, 0, 0
	for _, h := range c.heights {
		jobs += len(h.jobs)
		templates += len(h.templates)
		size += h.bytes
	}
	c.metrics.jobs.Set(float64(jobs))
	c.metrics.templates.Set(float64(templates))
	c.metrics.templateBytes.Set(float64(size))
	close(c.changed)
	c.changed = make(chan struct{})
}

// find returns a job and the raw transactions of its template. The error wraps errUnknown and says what is missing;
// changed is closed when there is a reason to look again.
func (c *cache) find(id job.ID) (j *job.StratumJob, txs []string, changed <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if j = c.job(id); j == nil {
		return nil, nil, c.changed, fmt.Errorf("job %d: %w", id, errUnknown)
	}
	for _, h := range c.heights {
		if places, ok := h.templates[j.GBTHash]; ok {
			txs = make([]string, len(places))
			for i, place := range places {
				txs[i] = h.transactions[place]
			}
			return j, txs, nil, nil
		}
	}
	return nil, nil, c.changed, fmt.Errorf("template %s of job %d: %w", j.GBTHash, id, errUnknown)
}

func (c *cache) job(id job.ID) *job.StratumJob {
	for _, h := range c.heights {
		if j := h.jobs[id]; j != nil {
			return j
		}
	}
	return nil
}

// await is find for what may still come: it looks until stop is closed, and then once more.
func (c *cache) await(ctx context.Context, id job.ID, stop <-chan struct{}) (*job.StratumJob, []string, error) {
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

func newHeight(number int32) *height {
	return &height{
		number:    number,
		jobs:      make(map[job.ID]*job.StratumJob),
		templates: make(map[string][]uint32),
		index:     make(map[string]uint32),
	}
}

func (h *height) addJob(j *job.StratumJob, size int) {
	h.jobs[j.ID] = j
	h.bytes += size
}

func (h *height) addTransaction(data string) (place uint32) {
	place = uint32(len(h.transactions))
	h.transactions = append(h.transactions, data)
	h.index[data] = place
	h.bytes += len(data)
	return place
}

// hashSize is the length of RawGBT.Hash.
const hashSize = 64

// addTemplate takes the payload of a template's record: its hash and, 4 bytes each, little-endian, the places of its
// transactions.
func (h *height) addTemplate(payload []byte) bool {
	if len(payload) < hashSize || (len(payload)-hashSize)%4 != 0 {
		return false
	}
	places := make([]uint32, 0, (len(payload)-hashSize)/4)
	for at := range slices.Chunk(payload[hashSize:], 4) {
		place := binary.LittleEndian.Uint32(at)
		if place >= uint32(len(h.transactions)) {
			return false
		}
		places = append(places, place)
	}
	h.templates[string(payload[:hashSize])] = places
	h.bytes += len(payload)
	return true
}
