package store

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"math/big"
	"strings"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

// StatsKind tells statistics of days from statistics of hours.
type StatsKind string

// The kinds are named as in the tables.
const (
	Day  StatsKind = "day"
	Hour StatsKind = "hour"
)

// StatsKey says whose work and when. Worker 0 is the whole user; user 0 and worker 0 are the pool.
type StatsKey struct {
	UserID   int32
	WorkerID int64
	Period   int // UTC, YYYYMMDD of a day, YYYYMMDDHH of an hour
}

// scopes are whose work the tables hold.
var scopes = []string{"pool", "users", "workers"}

// scope returns which pair of tables k belongs to, and their key columns.
func (k StatsKey) scope() (scope string, columns []string) {
	switch {
	case k.WorkerID != 0:
		return "workers", []string{"puid", "worker_id"}
	case k.UserID != 0:
		return "users", []string{"puid"}
	}
	return "pool", nil
}

// ids returns the values of the columns that scope names.
func (k StatsKey) ids() []any {
	switch scope, _ := k.scope(); scope {
	case "workers":
		return []any{k.UserID, k.WorkerID}
	case "users":
		return []any{k.UserID}
	}
	return nil
}

// Stats is what was done in a period.
type Stats struct {
	StatsKey
	Accept, Stale, Reject bitcoin.Work
	// RejectDetail is kept in whole difficulties. What does not fit into 255 bytes of JSON is left out, the smallest
	// first.
	RejectDetail map[share.Status]bitcoin.Work
	Score        *big.Int // in units of 10^-25; nil is 0
	EarnSat      *big.Int // satoshi; nil is 0
}

// scoreDigits is the scale of the column score, decimal(35,25).
const scoreDigits = 25

// maxDecimal is the largest decimal of 35 digits.
var maxDecimal = new(big.Int).Sub(new(big.Int).Exp(big.NewInt(10), big.NewInt(35), nil), big.NewInt(1))

// measureColumns are what upserts replace. The last four are what atLeast compares: MySQL assigns from left to right and
// compares with what has been assigned.
var measureColumns = []string{
	"reject_detail", "reject_rate", "score", "earn", "updated_at", "stale_hashes", "reject_hashes",
	"share_stale", "share_reject", "accept_hashes", "share_accept",
}

// atLeast makes the assignments of measureColumns, for rows only whose work is not less than what is there: first what
// was accepted, then the rest. SQLite has hashes as text.
func (s *Store) atLeast() []string {
	in := s.incoming
	hashes := in("accept_hashes")
	least := in("share_accept") + " > share_accept OR (" + in("share_accept") + " = share_accept AND (" +
		"LENGTH(" + hashes + ") > LENGTH(accept_hashes) OR (LENGTH(" + hashes + ") = LENGTH(accept_hashes) AND " + hashes + " >= accept_hashes)) AND " +
		in("share_stale") + " >= share_stale AND " + in("share_reject") + " >= share_reject)"
	set := make([]string, len(measureColumns))
	for i, c := range measureColumns {
		set[i] = c + " = CASE WHEN " + least + " THEN " + in(c) + " ELSE " + c + " END"
	}
	return set
}

func (st Stats) measures(now string) []any {
	rate := 0.0
	if reject := st.Reject.Float(); reject > 0 {
		rate = reject / (st.Accept.Float() + reject)
	}
	return []any{
		formatDetail(st.RejectDetail), rate, formatDecimal(st.Score, scoreDigits), formatDecimal(st.EarnSat, 0), now,
		st.Stale.String(), st.Reject.String(), difficulty(st.Stale), difficulty(st.Reject),
		st.Accept.String(), difficulty(st.Accept),
	}
}

// WriteStats writes the absolute values of days and hours, all or nothing. A row that says more than the one to write
// stays as it is: whoever counts a day again is behind until the end. A key may come once only.
func (s *Store) WriteStats(ctx context.Context, days, hours []Stats) error {
	now := timestamp(time.Now())
	return s.transact(ctx, func(tx *sql.Tx) error {
		if err := s.writeStats(ctx, tx, Day, days, now); err != nil {
			return err
		}
		return s.writeStats(ctx, tx, Hour, hours, now)
	})
}

// ReplaceDay writes the statistics of a day (YYYYMMDD) and its hours in place of all that is there for that day, all or
// nothing. A key may come once only.
func (s *Store) ReplaceDay(ctx context.Context, day int, days, hours []Stats) error {
	now := timestamp(time.Now())
	return s.transact(ctx, func(tx *sql.Tx) error {
		for _, scope := range scopes {
			for _, old := range []struct {
				kind     StatsKind
				from, to int
			}{{Day, day, day}, {Hour, day * 100, day*100 + 23}} {
				table := statsTable(scope, old.kind)
				if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE "+string(old.kind)+" BETWEEN ? AND ?", old.from, old.to); err != nil {
					return fmt.Errorf("clear %d from %s: %w", day, table, err)
				}
			}
		}
		if err := s.writeStats(ctx, tx, Day, days, now); err != nil {
			return err
		}
		return s.writeStats(ctx, tx, Hour, hours, now)
	})
}

// LogBytes tells for each day (YYYYMMDD) that the pool has a row of, how much of the day's share log all its rows were
// made of: -1 when not all are written, 0 when whoever wrote them did not say.
func (s *Store) LogBytes(ctx context.Context) (map[int]int64, error) {
	return queryMap[int, int64](ctx, s, "stats_pool_day", "SELECT day, log_bytes FROM stats_pool_day")
}

// SetLogBytes notes what LogBytes tells of a day, once all its rows are written.
func (s *Store) SetLogBytes(ctx context.Context, day int, bytes int64) error {
	if _, err := s.db.ExecContext(ctx, "UPDATE stats_pool_day SET log_bytes = ? WHERE day = ?", bytes, day); err != nil {
		return fmt.Errorf("write stats_pool_day: %w", err)
	}
	return nil
}

func (s *Store) writeStats(ctx context.Context, tx *sql.Tx, kind StatsKind, all []Stats, now string) error {
	tables := make(map[string][]Stats)
	for _, st := range all {
		scope, _ := st.scope()
		tables[scope] = append(tables[scope], st)
	}
	for _, scope := range scopes {
		rows := tables[scope]
		if len(rows) == 0 {
			continue
		}
		_, ids := rows[0].scope()
		key := append(ids, string(kind))
		columns := append(append([]string{"created_at"}, key...), measureColumns...)
		ofPool := scope == "pool" && kind == Day
		if ofPool {
			columns = append(columns, "log_bytes")
		}
		err := upsert(ctx, tx, statsTable(scope, kind), columns, s.onConflict(key, s.atLeast()...), rows,
			func(st Stats) []any {
				args := append([]any{now}, st.ids()...)
				args = append(append(args, st.Period), st.measures(now)...)
				if ofPool {
					args = append(args, -1) // until all rows of the day are written
				}
				return args
			})
		if err != nil {
			return err
		}
	}
	return nil
}

// ReadStats returns the statistics of one worker, one user (worker 0) or the pool (0, 0) for the periods from..to, both
// included, in their order. Periods without a row are absent. A row that btcpool wrote or updated has its work in whole
// difficulties.
func (s *Store) ReadStats(ctx context.Context, kind StatsKind, userID int32, workerID int64, from, to int) ([]Stats, error) {
	key := StatsKey{UserID: userID, WorkerID: workerID}
	scope, columns := key.scope()
	table := statsTable(scope, kind)
	text := "SELECT " + string(kind) + ", share_accept, share_stale, share_reject, reject_detail, score, earn, " +
		"accept_hashes, stale_hashes, reject_hashes FROM " + table + " WHERE "
	for _, c := range columns {
		text += c + " = ? AND "
	}
	text += string(kind) + " BETWEEN ? AND ? ORDER BY " + string(kind)

	return query(ctx, s, table, text, append(key.ids(), from, to), func(rows *sql.Rows) (Stats, error) {
		st := Stats{StatsKey: key}
		var accept, stale, reject int64
		var detail, score, earn, acceptHashes, staleHashes, rejectHashes string
		err := rows.Scan(&st.Period, &accept, &stale, &reject, &detail, &score, &earn,
			&acceptHashes, &staleHashes, &rejectHashes)
		st.Accept = work(acceptHashes, accept)
		st.Stale = work(staleHashes, stale)
		st.Reject = work(rejectHashes, reject)
		st.RejectDetail = parseDetail(detail)
		st.Score = parseDecimal(score, scoreDigits)
		st.EarnSat = parseDecimal(earn, 0)
		return st, err
	})
}

// acceptedHashes is the work of a row as a float: btcpool's have it in whole difficulties only.
const acceptedHashes = `CASE WHEN accept_hashes + 0.0e0 > 0 THEN accept_hashes + 0.0e0 ELSE share_accept * 4294967296.0e0 END`

// SumHours adds up the accepted hashes of the hours from..to, both included, of every worker, user (worker 0) and the
// pool (0, 0). Those without a row are absent.
func (s *Store) SumHours(ctx context.Context, from, to int) (map[WorkerKey]float64, error) {
	sums := make(map[WorkerKey]float64)
	for _, scope := range []struct{ name, key, group string }{
		{"pool", "0, 0", ""}, {"users", "puid, 0", " GROUP BY puid"}, {"workers", "puid, worker_id", " GROUP BY puid, worker_id"},
	} {
		table := statsTable(scope.name, Hour)
		_, err := query(ctx, s, table, "SELECT "+scope.key+", SUM("+acceptedHashes+") FROM "+table+" WHERE hour BETWEEN ? AND ?"+scope.group,
			[]any{from, to}, func(rows *sql.Rows) (k WorkerKey, err error) {
				var hashes sql.NullFloat64
				err = rows.Scan(&k.UserID, &k.WorkerID, &hashes)
				if hashes.Valid {
					sums[k] = hashes.Float64
				}
				return k, err
			})
		if err != nil {
			return nil, err
		}
	}
	return sums, nil
}

// HourWork is what the pool accepted in an hour.
type HourWork struct {
	Hour   int
	Hashes float64
}

// PoolHours returns the pool's accepted work in the hours from..to, both included, in their order.
func (s *Store) PoolHours(ctx context.Context, from, to int) ([]HourWork, error) {
	return query(ctx, s, "stats_pool_hour", "SELECT hour, "+acceptedHashes+" FROM stats_pool_hour WHERE hour BETWEEN ? AND ? ORDER BY hour",
		[]any{from, to}, func(rows *sql.Rows) (h HourWork, err error) {
			return h, rows.Scan(&h.Hour, &h.Hashes)
		})
}

// PurgeStats removes what is kept for a time only: days of workers for 90 days, hours of workers for 72 hours, hours of
// users for 30 days. A clock that is far ahead of the statistics is not believed: it is not later than the day after the
// newest.
func (s *Store) PurgeStats(ctx context.Context, now time.Time) error {
	var newest sql.NullInt64
	if err := s.db.QueryRowContext(ctx, "SELECT MAX(day) FROM stats_pool_day").Scan(&newest); err != nil {
		return fmt.Errorf("newest day: %w", err)
	}
	n := int(newest.Int64)
	latest := time.Date(n/10000, time.Month(n/100%100), n%100+2, 0, 0, 0, 0, time.UTC)
	if now = now.UTC(); now.After(latest) {
		now = latest
	}
	for _, p := range []struct {
		scope  string
		kind   StatsKind
		before time.Time
	}{
		{"workers", Day, now.AddDate(0, 0, -90)},
		{"workers", Hour, now.Add(-72 * time.Hour)},
		{"users", Hour, now.AddDate(0, 0, -30)},
	} {
		table := statsTable(p.scope, p.kind)
		if _, err := s.db.ExecContext(ctx, "DELETE FROM "+table+" WHERE "+string(p.kind)+" < ?", p.kind.Period(p.before)); err != nil {
			return fmt.Errorf("purge %s: %w", table, err)
		}
	}
	return nil
}

// Period returns the day or hour, in UTC, that holds t, as in StatsKey.
func (k StatsKind) Period(t time.Time) int {
	t = t.UTC()
	day := (t.Year()*100+int(t.Month()))*100 + t.Day()
	if k == Hour {
		return day*100 + t.Hour()
	}
	return day
}

func statsTable(scope string, kind StatsKind) string { return "stats_" + scope + "_" + string(kind) }

// difficulty is w in whole shares of difficulty 1, as a bigint holds it.
func difficulty(w bitcoin.Work) int64 {
	return int64(min(w.Difficulty(), math.MaxInt64))
}

// work is the exact number of hashes, unless the column of whole difficulties says something else: then its writer, the
// last one, did not know the other column.
func work(hashes string, whole int64) bitcoin.Work {
	if w, err := bitcoin.ParseWork(hashes); err == nil && difficulty(w) == whole {
		return w
	}
	return difficultyWork(uint64(max(whole, 0)))
}

func difficultyWork(d uint64) bitcoin.Work { return bitcoin.Work{Hi: d >> 32, Lo: d << 32} }

// formatDecimal writes n·10^-scale, no more than 35 digits can hold.
func formatDecimal(n *big.Int, scale int) string {
	if n == nil || n.Sign() < 0 {
		return "0"
	}
	if n.Cmp(maxDecimal) > 0 {
		n = maxDecimal
	}
	digits := fmt.Sprintf("%0*s", scale+1, n.String())
	if scale == 0 {
		return digits
	}
	return digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
}

// parseDecimal reads a decimal as a multiple of 10^-scale; what it cannot read is 0.
func parseDecimal(text string, scale int) *big.Int {
	whole, fraction, _ := strings.Cut(text, ".")
	fraction = (fraction + strings.Repeat("0", scale))[:scale]
	n, ok := new(big.Int).SetString(whole+fraction, 10)
	if !ok {
		return new(big.Int)
	}
	return n
}
