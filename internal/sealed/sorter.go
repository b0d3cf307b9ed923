package sealed

import (
	"cmp"
	"container/heap"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// How much is in memory while a day is sorted: the rows of a run, then batches of several runs.
var inMemory = limits{rows: 1 << 20, runs: 128, group: groupRows, spare: 256 << 20}

type limits struct {
	rows, runs int
	// group is how many rows a row group of the sealed file has.
	group int
	// spare is how many bytes of disk sealing leaves to who writes today's file.
	spare uint64
}

// sorter sorts more rows by worker than memory holds: in runs, which are files in a folder, and these are merged. Rows of
// a worker stay in the order in which they were added.
type sorter struct {
	dir  string
	rows []row
	runs []string
	made int // runs, those that were merged among them
	limits
}

func (s *sorter) add(r row) error {
	if s.rows == nil {
		s.rows = make([]row, 0, s.limits.rows)
	}
	s.rows = append(s.rows, r)
	if len(s.rows) < s.limits.rows {
		return nil
	}
	return s.flush()
}

// key is what a row is sorted by, and where in memory it is.
type key struct {
	worker int64
	user   int32
	at     int32
}

// sorted hands over the rows in memory.
func (s *sorter) sorted(write func([]row) error) error {
	keys := make([]key, len(s.rows))
	for i := range s.rows {
		keys[i] = key{s.rows[i].WorkerID, s.rows[i].UserID, int32(i)}
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.user, b.user), cmp.Compare(a.worker, b.worker), cmp.Compare(a.at, b.at))
	})
	batch := make([]row, 0, batchRows)
	for part := range slices.Chunk(keys, batchRows) {
		batch = batch[:0]
		for _, k := range part {
			batch = append(batch, s.rows[k.at])
		}
		if err := write(batch); err != nil {
			return err
		}
	}
	s.rows = s.rows[:0]
	return nil
}

// flush makes a run of the rows in memory.
func (s *sorter) flush() error {
	if len(s.runs) == s.limits.runs {
		if err := s.writeRun(s.mergeRuns); err != nil {
			return err
		}
	}
	return s.writeRun(s.sorted)
}

// writeRun makes a run of what rows hands over.
func (s *sorter) writeRun(rows func(write func([]row) error) error) (err error) {
	s.made++
	f, err := os.Create(filepath.Join(s.dir, strconv.Itoa(s.made)+".run"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := newWriter(f, runPage, groupRows)
	if err := rows(func(batch []row) error { _, err := w.Write(batch); return err }); err != nil {
		return err
	}
	s.runs = append(s.runs, f.Name())
	return w.Close()
}

// merge hands over all rows in their order.
func (s *sorter) merge(write func([]row) error) error {
	if len(s.runs) == 0 {
		return s.sorted(write)
	}
	if len(s.rows) > 0 {
		if err := s.flush(); err != nil {
			return err
		}
	}
	s.rows = nil
	return s.mergeRuns(write)
}

// mergeRuns hands over the rows of all runs, which are gone then.
func (s *sorter) mergeRuns(write func([]row) error) (err error) {
	var open runs
	defer func() {
		for _, r := range open {
			err = errors.Join(err, r.file.close())
		}
	}()
	for i, path := range s.runs {
		f, err := openFile(path)
		if err != nil {
			return err
		}
		r := &run{file: f, index: i, batch: make([]row, batchRows)}
		open = append(open, r)
		if err := r.fill(); err != nil {
			return err
		}
	}
	heap.Init(&open)
	batch := make([]row, 0, batchRows)
	for len(open) > 0 {
		r := open[0]
		worker := r.head()
		for n := 1; ; n++ { // the worker's rows in this batch
			if n < len(r.rows) && r.rows[n].compare(worker) == 0 {
				continue
			}
			if len(batch)+n > batchRows {
				if err := write(batch); err != nil {
					return err
				}
				batch = batch[:0]
			}
			batch, r.rows = append(batch, r.rows[:n]...), r.rows[n:]
			break
		}
		if len(r.rows) == 0 {
			if err := r.fill(); errors.Is(err, io.EOF) {
				heap.Pop(&open)
				if err := r.file.close(); err != nil {
					return err
				}
				continue
			} else if err != nil {
				return err
			}
		}
		heap.Fix(&open, 0)
	}
	if err := write(batch); err != nil {
		return err
	}
	for _, path := range s.runs {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	s.runs = nil
	return nil
}

// run is a run that is being merged. It has rows at hand.
type run struct {
	file  *file
	index int // those of a worker in an earlier run come first
	batch []row
	rows  []row
}

func (r *run) head() *row { return &r.rows[0] }

func (r *run) fill() error {
	n, err := r.file.read(r.batch)
	r.rows = r.batch[:n]
	return err
}

// runs is a heap, of the run whose row comes next.
type runs []*run

func (r runs) Len() int      { return len(r) }
func (r runs) Swap(i, j int) { r[i], r[j] = r[j], r[i] }
func (r *runs) Push(any)     {}
func (r *runs) Pop() any {
	last := len(*r) - 1
	*r = (*r)[:last]
	return nil
}

func (r runs) Less(i, j int) bool {
	return cmp.Or(r[i].head().compare(r[j].head()), cmp.Compare(r[i].index, r[j].index)) < 0
}
