package sealed

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

// footerKey is what the footer is called in the file's key-value metadata, and format how it is to be read.
const (
	footerKey = "btcpool.sharelog"
	format    = 1
	maxFooter = 16 << 20
)

// Footer is what a sealed file says about itself: JSON in its key-value metadata.
type Footer struct {
	Format  int               `json:"format"`
	Chain   string            `json:"chain"`
	Day     sharefile.Day     `json:"day"`
	Offsets []sharefile.Range `json:"offsets"` // of the messages in the topic that the shares are of; none: not known
	Sources []Source          `json:"sources"` // oldest first
	Total
}

// Total is what the records of a file add up to.
type Total struct {
	Records   int64  `json:"records"`
	Malformed int64  `json:"malformed"` // records that are no shares
	Digest    Digest `json:"digest"`
	Counted   Digest `json:"counted,omitzero"` // of what statistics are made of, see tally; 0: not known
	ByStatus  []Sum  `json:"by_status"`
}

// Sum is what the shares of a status add up to.
type Sum struct {
	Status share.Status `json:"status"`
	Shares int64        `json:"shares"`
	Hashes string       `json:"hashes"` // expected by their difficulties, decimal
}

// Source is a file that records were taken from.
type Source struct {
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
	Records int64  `json:"records"`
	Digest  Digest `json:"digest"` // of its records; those of all sources add up to the file's
}

func (t *tally) total() Total {
	all := Total{Records: t.records, Malformed: t.malformed, Digest: t.digest, Counted: t.counted}
	for status, of := range t.byStatus {
		all.ByStatus = append(all.ByStatus, Sum{status, of.shares, of.hashes.String()})
	}
	slices.SortFunc(all.ByStatus, func(a, b Sum) int { return cmp.Compare(a.Status, b.Status) })
	return all
}

// differs says how what was found is not what it should be.
func (t Total) differs(found Total) error {
	switch {
	case t.Records != found.Records:
		return fmt.Errorf("%d records, not %d", found.Records, t.Records)
	case t.Malformed != found.Malformed:
		return fmt.Errorf("%d malformed records, not %d", found.Malformed, t.Malformed)
	case !slices.Equal(t.ByStatus, found.ByStatus):
		return fmt.Errorf("sums by status %v, not %v", found.ByStatus, t.ByStatus)
	case t.Digest != found.Digest, t.Counted != 0 && t.Counted != found.Counted:
		return errors.New("other records")
	}
	return nil
}

// last is the source that is the day's file, unless that was removed since.
func (f *Footer) last() *Source { return &f.Sources[len(f.Sources)-1] }

// adds tells whether the sources have the records that the file has.
func (f *Footer) adds() bool {
	var records int64
	var digest Digest
	for _, s := range f.Sources {
		records += s.Records
		digest += s.Digest
	}
	return records == f.Records && digest == f.Digest
}

func (f *Footer) encode() (string, error) {
	text, err := json.Marshal(f)
	return string(text), err
}

func parseFooter(text string) (*Footer, error) {
	if len(text) > maxFooter {
		return nil, fmt.Errorf("footer of %d bytes", len(text))
	}
	f := new(Footer)
	if err := json.Unmarshal([]byte(text), f); err != nil {
		return nil, err
	}
	switch {
	case f.Format != format:
		return nil, fmt.Errorf("format %d, not %d", f.Format, format)
	case sharefile.CheckChain(f.Chain) != nil:
		return nil, sharefile.ErrChain
	case len(f.Sources) == 0 || !f.adds():
		return nil, errors.New("sources do not add up")
	}
	return f, nil
}

// span is a partition of the topic between two times when it was made anew.
type span struct {
	generation uint64
	partition  int
}

// follows tells whether all messages of some offsets come after those of others. Offsets that are not known prove nothing.
func follows(offsets, others []sharefile.Range) bool {
	if len(offsets) == 0 || len(others) == 0 {
		return false
	}
	ends := make(map[span]int64)
	for _, o := range others {
		ends[span{o.Generation, o.Partition}] = o.To
	}
	for _, o := range offsets {
		if o.From < ends[span{o.Generation, o.Partition}] {
			return false
		}
	}
	return true
}

// join returns the offsets of both.
func join(a, b []sharefile.Range) []sharefile.Range {
	all := make(map[span]sharefile.Range)
	for _, r := range slices.Concat(a, b) {
		k := span{r.Generation, r.Partition}
		had, ok := all[k]
		if ok {
			r.From, r.To = min(r.From, had.From), max(r.To, had.To)
		}
		all[k] = r
	}
	return slices.SortedFunc(maps.Values(all), func(a, b sharefile.Range) int {
		return cmp.Or(cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.Partition, b.Partition))
	})
}
