package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// MinutesPerHour is how many minutes a row of stats_minutes has at most.
const MinutesPerHour = 60

// Minutes is what was done in each minute of an hour, by whom the key says; its period is the hour. It is a row of
// stats_minutes, which holds a day or so: an hour of one worker in one row, so that there are not a hundred million.
type Minutes struct {
	StatsKey
	// From and To are the minutes that are known: From, included, to To, which is not.
	From, To int
	// Accept, Stale and Reject are hashes. What is no float of 53 bits is cut.
	Accept, Stale, Reject [MinutesPerHour]float64
}

// ErrMinutes says that bytes are no minutes.
var ErrMinutes = errors.New("bad minutes")

const minutesVersion = 1

// AppendTo appends m but for its key: a version, From and To in a byte each, and the three series of From to To. A series is
// an exponent (zigzag) and numbers, all varints, with number·2^exponent hashes; behind a 0 stands how many more there are.
func (m *Minutes) AppendTo(dst []byte) []byte {
	dst = append(dst, minutesVersion, byte(m.From), byte(m.To))
	for _, series := range []*[MinutesPerHour]float64{&m.Accept, &m.Stale, &m.Reject} {
		dst = appendSeries(dst, series[m.From:m.To])
	}
	return dst
}

const mantissaBits = 53

// appendSeries chooses the largest exponent that leaves every number whole, unless the largest does not fit then.
func appendSeries(dst []byte, series []float64) []byte {
	least, most := math.MaxInt32, math.MinInt32
	for _, v := range series {
		if v <= 0 {
			continue
		}
		mantissa, exponent := math.Frexp(v)
		n := uint64(math.Ldexp(mantissa, mantissaBits))
		exponent -= mantissaBits
		for n&1 == 0 {
			n >>= 1
			exponent++
		}
		least = min(least, exponent)
		_, top := math.Frexp(v)
		most = max(most, top)
	}
	if most == math.MinInt32 {
		least = 0
	}
	least = max(least, most-63)
	dst = binary.AppendVarint(dst, int64(least))
	for i := 0; i < len(series); i++ {
		n := uint64(0)
		if series[i] > 0 {
			n = uint64(math.Ldexp(series[i], -least))
		}
		dst = binary.AppendUvarint(dst, n)
		if n != 0 {
			continue
		}
		more := 0
		for i+1 < len(series) && series[i+1] <= 0 {
			more++
			i++
		}
		dst = binary.AppendUvarint(dst, uint64(more))
	}
	return dst
}

// Parse reads what AppendTo has appended, and leaves the key alone.
func (m *Minutes) Parse(src []byte) error {
	*m = Minutes{StatsKey: m.StatsKey}
	if len(src) < 3 || src[0] != minutesVersion || src[1] > src[2] || src[2] > MinutesPerHour {
		return ErrMinutes
	}
	m.From, m.To = int(src[1]), int(src[2])
	src = src[3:]
	for _, series := range []*[MinutesPerHour]float64{&m.Accept, &m.Stale, &m.Reject} {
		var ok bool
		if src, ok = cutSeries(src, series[m.From:m.To]); !ok {
			return ErrMinutes
		}
	}
	if len(src) > 0 {
		return ErrMinutes
	}
	return nil
}

func cutSeries(src []byte, into []float64) (rest []byte, ok bool) {
	exponent, size := binary.Varint(src)
	if size <= 0 || exponent < -1100 || exponent > 1000-64 {
		return nil, false
	}
	src = src[size:]
	for i := 0; i < len(into); i++ {
		n, size := binary.Uvarint(src)
		if size <= 0 {
			return nil, false
		}
		src = src[size:]
		into[i] = math.Ldexp(float64(n), int(exponent))
		if n != 0 {
			continue
		}
		more, size := binary.Uvarint(src)
		if size <= 0 || more >= uint64(len(into)-i) {
			return nil, false
		}
		src = src[size:]
		i += int(more)
	}
	return src, true
}

var minutesKey = []string{"puid", "worker_id", "hour"}

// WriteMinutes writes rows, all or nothing. One that knows more minutes of its hour stays as it is.
func (s *Store) WriteMinutes(ctx context.Context, all []Minutes) error {
	more := s.incoming("known") + " >= known"
	tail := s.onConflict(minutesKey,
		"minutes = CASE WHEN "+more+" THEN "+s.incoming("minutes")+" ELSE minutes END",
		"known = CASE WHEN "+more+" THEN "+s.incoming("known")+" ELSE known END")
	return s.transact(ctx, func(tx *sql.Tx) error {
		return upsert(ctx, tx, "stats_minutes", append(minutesKey, "known", "minutes"), tail, all, func(args []any, m Minutes) []any {
			return append(args, m.UserID, m.WorkerID, m.Period, m.To-m.From, m.AppendTo(nil))
		})
	})
}

const selectMinutes = `SELECT hour, minutes FROM stats_minutes WHERE puid = ? AND worker_id = ? AND hour BETWEEN ? AND ? ORDER BY hour`

// ReadMinutes returns the rows of one worker, one user (worker 0) or the pool (0, 0) for the hours from..to, both
// included, in their order.
func (s *Store) ReadMinutes(ctx context.Context, userID int32, workerID int64, from, to int) ([]Minutes, error) {
	return query(ctx, s, "stats_minutes", selectMinutes, []any{userID, workerID, from, to}, func(rows *sql.Rows) (Minutes, error) {
		m := Minutes{StatsKey: StatsKey{UserID: userID, WorkerID: workerID}}
		var packed []byte
		if err := rows.Scan(&m.Period, &packed); err != nil {
			return m, err
		}
		return m, m.Parse(packed)
	})
}

// PurgeMinutes deletes up to limit rows of hours before that time, and returns how many there were.
func (s *Store) PurgeMinutes(ctx context.Context, before time.Time, limit int) (n int, err error) {
	type key struct {
		user   int32
		worker int64
		hour   int
	}
	keys, err := query(ctx, s, "minutes to purge", "SELECT puid, worker_id, hour FROM stats_minutes WHERE hour < ? LIMIT ?",
		[]any{Hour.Period(before), limit}, func(rows *sql.Rows) (k key, err error) {
			return k, rows.Scan(&k.user, &k.worker, &k.hour)
		})
	if err != nil || len(keys) == 0 {
		return 0, err
	}
	err = s.transact(ctx, func(tx *sql.Tx) error {
		for _, k := range keys { // by key: a search would lock rows that others write
			if _, err := tx.ExecContext(ctx, "DELETE FROM stats_minutes WHERE puid = ? AND worker_id = ? AND hour = ?", k.user, k.worker, k.hour); err != nil {
				return fmt.Errorf("purge minutes: %w", err)
			}
		}
		return nil
	})
	return len(keys), err
}
