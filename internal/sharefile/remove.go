package sharefile

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"btcpool/internal/durable"
)

// ErrNeeded says that a day's file is one of those that tell where to go on in the topic.
var ErrNeeded = errors.New("the newest files are needed to go on")

// Needs tells whether a day's file is one of those that tell where to go on in the topic, or has shares pending.
func (w *Writer) Needs(day Day) (bool, error) {
	days, err := Days(w.dir, w.chain)
	if err != nil {
		return false, err
	}
	f := w.days[day]
	return slices.Contains(days[max(0, len(days)-daysKept):], day) ||
		f != nil && (f.shares > 0 || f.member != nil || f.last != nil && f.last.Flush == w.flush), nil
}

// Remove removes a day's file that is kept elsewhere, if it is still the one that info describes. Shares that come to
// the day later begin a file of their own.
func (w *Writer) Remove(day Day, info os.FileInfo) error {
	needed, err := w.Needs(day)
	if err != nil {
		return err
	}
	if needed {
		return fmt.Errorf("file of %d: %w", day, ErrNeeded)
	}
	path := Path(w.dir, w.chain, day)
	now, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !os.SameFile(info, now) || now.Size() != info.Size() || !now.ModTime().Equal(info.ModTime()) {
		return fmt.Errorf("%s has changed", path)
	}
	delete(w.days, day)
	return errors.Join(os.Remove(path), durable.SyncDir(w.dir))
}
