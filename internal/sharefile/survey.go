package sharefile

import (
	"errors"
	"maps"
	"os"
	"slices"
)

// Range is where in a partition of the topic the shares of a file stood.
type Range struct {
	Generation uint64 `json:"generation"` // see Checkpoint
	Partition  int    `json:"partition"`
	From       int64  `json:"from"`
	To         int64  `json:"to"` // the first offset that is not among them
}

// Survey is what the headers of a file's members say.
type Survey struct {
	Ranges []Range // none: other software wrote it
	Gaps   int     // stretches whose shares are gone
	Mixed  bool    // other software wrote some of it
}

// Look reads the headers of a day's file, up to size. It does not find damage of the members' data.
func Look(f *os.File, size int64) (Survey, error) {
	var m members
	var s Survey
	type part struct {
		generation uint64
		partition  int
	}
	ranges := make(map[part]Range)
	first := make([]byte, min(size, headBytes))
	if _, err := f.ReadAt(first, 0); err != nil {
		return s, err
	}
	if !isCompressed(first) {
		return Survey{Mixed: true}, nil
	}
	for at := int64(0); at < size; {
		head := make([]byte, min(extraAt, size-at))
		if _, err := f.ReadAt(head, at); err != nil {
			return s, err
		}
		if len(head) < extraAt || string(head[:len(gzipMagic)]) != gzipMagic {
			return s, corrupt(f, at, errors.New("no gzip member"))
		}
		if head[flagsAt]&flagExtra == 0 {
			s.Mixed = true
			n, err := m.foreign(f, at)
			if err != nil {
				return s, err
			}
			at += n
			continue
		}
		header, err := m.readHeader(f, at, size)
		if err != nil {
			return s, corrupt(f, at, err)
		}
		if c, n, ok := parseHeader(header); ok {
			for p, to := range c.To {
				r := Range{c.Generation, p, 0, to}
				if mark, ok := c.From[p]; ok {
					r.From = mark.Offset + 1
				}
				if had, ok := ranges[part{c.Generation, p}]; ok {
					r.From, r.To = min(r.From, had.From), max(r.To, had.To)
				}
				ranges[part{c.Generation, p}] = r
			}
			at += n
			continue
		}
		if len(header) <= payloadAt || header[payloadAt] != formatGap {
			return s, corrupt(f, at, errors.New("damaged checkpoint"))
		}
		s.Gaps++
		next, err := m.next(f, at+1, size)
		if err != nil {
			return s, err
		}
		if next.size == 0 {
			break
		}
		at = next.at
	}
	s.Ranges = slices.Collect(maps.Values(ranges))
	return s, nil
}
