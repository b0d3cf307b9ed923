package sharelogger

import (
	"context"
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"

	"btcpool/internal/bus"
)

// ourNote tells our offsets in a consumer group from those of others, who leave no note.
const ourNote = "checkpoint in the share log"

// group is the consumer group that btcpool's sharelogger keeps its offset in. Ours go there too, for others to go on
// from; we go by the checkpoints in the share log, unless others have been there since.
type group struct {
	id, topic string
	bus       *bus.Client
	log       zerolog.Logger
	commits   *prometheus.CounterVec
	rarely    rate.Sometimes // is something logged

	known map[int]bus.Committed // what the group remembered last
}

func newGroup(client *bus.Client, id, topic string, log zerolog.Logger, commits *prometheus.CounterVec) *group {
	for _, result := range []string{"ok", "failed", "conflict"} {
		commits.WithLabelValues(result) // or the first one would be no increase
	}
	return &group{
		id: id, topic: topic, bus: client, log: log.With().Str("group", id).Logger(), commits: commits,
		rarely: rate.Sometimes{Interval: time.Minute},
	}
}

// theirs returns where others stopped, by partition; partitions that we were the last to commit are absent.
func (g *group) theirs(ctx context.Context) (map[int]int64, error) {
	committed, err := g.bus.Committed(ctx, g.id, g.topic)
	if err != nil {
		return nil, err
	}
	g.known = committed
	next := make(map[int]int64)
	for p, c := range committed {
		if c.Note != ourNote {
			next[p] = c.Next
		}
	}
	return next, nil
}

// commit has the group remember where to go on.
func (g *group) commit(ctx context.Context, next map[int]int64) {
	want := make(map[int]bus.Committed, len(next))
	for p, offset := range next {
		want[p] = bus.Committed{Next: offset, Note: ourNote}
	}
	if len(want) == 0 || maps.Equal(want, g.known) {
		return
	}
	result := "ok"
	committed, err := g.bus.Committed(ctx, g.id, g.topic)
	if err == nil {
		for p, c := range committed {
			if c.Note != ourNote && c != g.known[p] {
				result = "conflict"
				g.rarely.Do(func() {
					g.log.Error().Int("partition", p).Int64("offset", c.Next).
						Msg("somebody else commits to the consumer group: is another sharelogger running? Shares will be in the log twice")
				})
			}
		}
		err = g.bus.Commit(ctx, g.id, g.topic, next, ourNote)
	}
	switch {
	case err == nil:
		g.known = want
	case ctx.Err() != nil:
		return
	default:
		result = "failed"
		g.rarely.Do(func() { g.log.Warn().Err(err).Msg("offset not left in the consumer group: will try again") })
	}
	g.commits.WithLabelValues(result).Inc()
}
