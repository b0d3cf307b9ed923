package sealed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/parquet-go/parquet-go"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

// Streak is records of a worker, one after the other, that are alike in all that statistics are made of.
type Streak struct {
	// Share has the first one's user, external user, worker, status, difficulty, bits, height, job and time. Of the others
	// the time is in the same hour, and whether there is a job is the same. Other fields mean nothing.
	Share     share.Share
	Records   int64
	Malformed bool // they are no shares
}

// Sizes of what is between those who decode row groups and who uses them: a row group has at most so many streaks waiting.
const (
	streaksBatch   = 4096
	streaksWaiting = 16 // batches
)

// Streaks hands over all records in streaks, in their order, as Next does record by record, in place of that. Columns that
// streaks do not need are not read, and row groups are decoded on all cores. What is handed over is proven only when it
// returns nil: a file that does not have what its footer says gives ErrCorrupt at the end, if nothing showed before.
func (r *Reader) Streaks(ctx context.Context, use func([]Streak)) error {
	groups := r.file.groups
	r.file.groups = nil
	g, ctx := errgroup.WithContext(ctx)
	parts := make(chan chan []Streak, runtime.GOMAXPROCS(0)-1) // of the row groups that are being decoded
	g.Go(func() error {
		defer close(parts)
		for _, group := range groups {
			streaks := make(chan []Streak, streaksWaiting)
			select {
			case parts <- streaks:
			case <-ctx.Done():
				return ctx.Err()
			}
			g.Go(func() error { return r.file.decode(ctx, group, streaks) })
		}
		return nil
	})
	for part := range parts {
		for streaks := range part {
			use(streaks)
			for i := range streaks {
				r.tally.addStreak(&streaks[i])
			}
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	found := r.tally.total()
	found.Digest = r.footer.Digest
	if err := r.footer.differs(found); err != nil {
		return r.file.corrupt(err)
	}
	return nil
}

// decode sends the streaks of a row group, and closes out.
func (f *file) decode(ctx context.Context, group parquet.RowGroup, out chan<- []Streak) (err error) {
	defer close(out)
	defer f.guard(&err)
	c := openColumns(group, userID, workerID, extUserID, status, unixTime, difficulty, jobID, networkBits, height)
	defer func() { err = errors.Join(err, c.close()) }()
	streaks := make([]Streak, 0, streaksBatch)
	for ctx.Err() == nil {
		n, of, err := c.next(batchRows)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return f.corrupt(err)
		}
		if streaks, err = appendStreaks(streaks, n, &of); err != nil {
			return f.corrupt(err)
		}
		if len(streaks) < streaksBatch {
			continue
		}
		last := len(streaks) - 1 // may go on
		select {
		case out <- streaks[:last:last]:
		case <-ctx.Done():
			return ctx.Err()
		}
		streaks = append(make([]Streak, 0, streaksBatch+batchRows), streaks[last])
	}
	select {
	case out <- streaks:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// appendStreaks adds n rows to streaks.
func appendStreaks(streaks []Streak, n int, values *values) ([]Streak, error) {
	of := &values.numbers
	users, workers, exts, states := of[userID][:n], of[workerID][:n], of[extUserID][:n], of[status][:n]
	times, diffs, jobs, bits, heights := of[unixTime][:n], of[difficulty][:n], of[jobID][:n], of[networkBits][:n], of[height][:n]
	var last *Streak
	var since int64 // the period that last is in
	open := func() {
		last = nil
		if len(streaks) > 0 && !streaks[len(streaks)-1].Malformed {
			last = &streaks[len(streaks)-1]
			since = period(last.Share.Time)
		}
	}
	open()
	for i, record := range values.records[:n] {
		if record == nil && last != nil && period(times[i]) == since {
			s := &last.Share
			if s.WorkerID == workers[i] && s.UserID == int32(users[i]) && s.Status == share.Status(states[i]) &&
				int32(s.Difficulty) == int32(diffs[i]) && s.Height == uint32(heights[i]) && s.Bits == uint32(bits[i]) &&
				s.ExtUserID == int32(exts[i]) && (s.JobID == 0) == (jobs[i] == 0) {
				last.Records++
				continue
			}
		}
		next := Streak{Records: 1}
		s := &next.Share
		switch {
		case record != nil:
			next.Malformed = s.ParseBody(record) != nil
		case int32(diffs[i]) < int32(bitcoin.MinDifficulty) || int32(diffs[i]) > int32(bitcoin.MaxDifficulty):
			return streaks, fmt.Errorf("difficulty 2^%d", int32(diffs[i]))
		default:
			*s = share.Share{
				JobID: uint64(jobs[i]), WorkerID: workers[i], UserID: int32(users[i]), ExtUserID: int32(exts[i]), Status: share.Status(states[i]),
				Time: times[i], Difficulty: bitcoin.Difficulty(int32(diffs[i])), Bits: uint32(bits[i]), Height: uint32(heights[i]),
			}
		}
		streaks = append(streaks, next)
		open()
	}
	return streaks, nil
}
