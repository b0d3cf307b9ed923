package statshttpd

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/notify"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

// tell shows the board and the blocks to whoever tells people, again and again until ctx ends.
func (s *Service) tell(ctx context.Context) {
	if s.teller == nil {
		return
	}
	blocks := service.NewFault(s.log, zerolog.WarnLevel, "blocks not read: none are told of", "blocks are told of again")
	for retry.Sleep(ctx, notify.Interval) {
		if err := s.tellNow(ctx); ctx.Err() == nil {
			blocks.Set(err)
		}
	}
}

func (s *Service) tellNow(ctx context.Context) error {
	db := s.db.Load()
	if db == nil {
		return nil // names are not known yet
	}
	if s.replayed.Load() && s.heard.Load() != 0 && s.kafka.Err() == nil { // what is not counted looks like silence
		now := s.now()
		s.teller.Look(now, s.board.sights(now))
	}
	return s.tellBlocks(ctx, db)
}

// tellBlocks hands over the newest blocks, back to those that cannot have changed.
func (s *Service) tellBlocks(ctx context.Context, db *store.Store) error {
	const pageSize, pages = 100, 20
	var blocks []notify.Block
	for len(blocks) < pageSize*pages {
		var page []store.Block
		err := withTimeout(ctx, func(ctx context.Context) (err error) {
			page, err = db.Blocks(ctx, pageSize, len(blocks))
			return err
		})
		if err != nil {
			return err
		}
		for _, b := range page {
			blocks = append(blocks, s.board.toldBlock(b))
		}
		if len(page) < pageSize || s.teller.Covered(blocks) {
			break
		}
	}
	s.teller.Blocks(s.now(), blocks)
	return nil
}

// toldBlock is a block as it is told.
func (b *board) toldBlock(of store.Block) notify.Block {
	b.mu.RLock()
	defer b.mu.RUnlock()
	user, worker, _ := strings.Cut(of.WorkerName, ".")
	if u := b.users[of.UserID]; u != nil && u.Name != "" {
		user, worker = u.Name, strings.TrimPrefix(strings.TrimPrefix(of.WorkerName, u.Name), ".")
	}
	return notify.Block{
		Hash: of.Hash, Height: of.Height, User: user, Worker: worker, RewardSat: of.RewardSat, Time: of.CreatedAt, State: string(of.State),
	}
}

// sights are the figures of the pool, of each user and of each worker that had a share.
func (b *board) sights(now time.Time) iter.Seq[notify.Sight] {
	return func(yield func(notify.Sight) bool) {
		b.mu.RLock()
		keys := slices.Collect(maps.Keys(b.workers))
		all := []notify.Sight{{Figures: b.figures(&b.pool, now.Unix())}}
		for id, u := range b.users {
			if u.last != 0 {
				all = append(all, notify.Sight{Subject: notify.Subject{UserID: id, User: u.called(id)}, Figures: b.figures(&u.window, now.Unix())})
			}
		}
		b.mu.RUnlock()
		for chunk := range slices.Chunk(keys, orderChunk) { // shares are not kept waiting
			b.mu.RLock()
			for _, k := range chunk {
				w := b.workers[k]
				if w == nil || w.waits != nil {
					continue
				}
				at := notify.Subject{UserID: k.UserID, WorkerID: k.WorkerID, User: b.users[k.UserID].called(k.UserID), Worker: w.Name}
				if at.Worker == "" {
					at.Worker = strconv.FormatInt(k.WorkerID, 10)
				}
				f := notify.Figures{Last: w.last}
				f.Shares, f.Refused = w.judged(now.Unix(), quarterHour)
				all = append(all, notify.Sight{Subject: at, Figures: f})
			}
			b.mu.RUnlock()
			for _, sight := range all {
				if !yield(sight) {
					return
				}
			}
			all = all[:0]
		}
		for _, sight := range all {
			if !yield(sight) {
				return
			}
		}
	}
}

// figures compare the last quarter of an hour with the day, or with the hour where that is all that is known. b.mu is held.
func (b *board) figures(w *window, now int64) notify.Figures {
	f := notify.Figures{Last: w.last}
	f.Shares, f.Refused = w.judged(now, quarterHour)
	current, mean := w.rate(now, quarterHour), w.dayRate(now, b.dayEnd)
	if !mean.Known {
		mean = w.rate(now, hour)
	}
	gone := w.last != 0 && now-w.last >= int64(hour) // its rings may be gone, too
	f.RateKnown = gone || current.Known && mean.Known
	f.Rate, f.Mean = current.HashesPerSecond, mean.HashesPerSecond
	if a := w.acceptedSum(now, hour); a.Shares > 0 {
		f.Expected = f.Mean * float64(quarterHour) / (a.Work.Float() / float64(a.Shares))
	}
	return f
}

// called is the name of a user, or the id where it is not known.
func (u *user) called(id int32) string {
	if u.Name == "" {
		return strconv.Itoa(int(id))
	}
	return u.Name
}
