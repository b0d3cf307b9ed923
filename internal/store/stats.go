package store

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/retry"
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

// idColumns are the key columns of a scope's tables, but for the period.
var idColumns = map[string][]string{"pool": nil, "users": {"puid"}, "workers": {"puid", "worker_id"}}

// scope returns which pair of tables k belongs to.
func (k StatsKey) scope() string {
	switch {
	case k.WorkerID != 0:
		return "workers"
	case k.UserID != 0:
		return "users"
	}
	return "pool"
}

// appendIDs appends the values of idColumns.
func (k StatsKey) appendIDs(args []any) []any {
	switch k.scope() {
	case "workers":
		return append(args, k.UserID, k.WorkerID)
	case "users":
		return append(args, k.UserID)
	}
	return args
}

// Stats is what was done in a period.
type Stats struct {
	StatsKey
	Accept, Stale, Reject bitcoin.Work
	// RejectDetail is Reject by reason. Of more than some twenty reasons the smallest are left out. A row that btcpool
	// wrote or updated has it in whole difficulties, as far as those fit into 255 bytes of JSON.
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
	"reject_detail", "reject_detail_hashes", "reject_rate", "score", "earn", "updated_at", "stale_hashes", "reject_hashes",
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

func (st Stats) appendMeasures(args []any, now string) []any {
	rate := 0.0
	if reject := st.Reject.Float(); reject > 0 {
		rate = reject / (st.Accept.Float() + reject)
	}
	return append(args,
		FormatDetail(st.RejectDetail), formatDetailHashes(st.RejectDetail), rate, formatDecimal(st.Score, scoreDigits), formatDecimal(st.EarnSat, 0), now,
		st.Stale.String(), st.Reject.String(), difficulty(st.Stale), difficulty(st.Reject),
		st.Accept.String(), difficulty(st.Accept),
	)
}

// WriteStats writes the absolute values of days and hours, all or nothing. A row that says more than the one to write
// stays as it is: whoever counts a day again is behind until the end. A key may come once only.
func (s *Store) WriteStats(ctx context.Context, days, hours []Stats) error {
	return s.writeAllStats(ctx, days, hours, s.atLeast())
}

// OverwriteStats is WriteStats for rows that are right whatever is there.
func (s *Store) OverwriteStats(ctx context.Context, days, hours []Stats) error {
	return s.writeAllStats(ctx, days, hours, s.replace(measureColumns...))
}

func (s *Store) writeAllStats(ctx context.Context, days, hours []Stats, set []string) error {
	now := timestamp(time.Now())
	return s.transact(ctx, func(tx *sql.Tx) error {
		if err := s.writeStats(ctx, tx, Day, days, set, now); err != nil {
			return err
		}
		return s.writeStats(ctx, tx, Hour, hours, set, now)
	})
}

// DropStats deletes the rows of a day (YYYYMMDD) and its hours that do not stay, some at a time. rows is how many stay in
// all, and are there: when there are no more, no row is looked at.
func (s *Store) DropStats(ctx context.Context, day, rows int, stays func(StatsKind, StatsKey) bool) error {
	tables := statsTables(day)
	for _, t := range tables {
		n := 0
		if err := s.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+t.name+t.where, t.from, t.to).Scan(&n); err != nil {
			return fmt.Errorf("count rows of %s: %w", t.name, err)
		}
		rows -= n
	}
	if rows == 0 {
		return nil
	}
	for _, t := range tables {
		if err := s.dropStats(ctx, t, stays); err != nil {
			return err
		}
	}
	return nil
}

// tablePart is what a table has of some time.
type tablePart struct {
	name, scope string
	kind        StatsKind
	key         []string // columns
	where       string
	from, to    int // arguments of where
}

// statsTables are the tables that have statistics of a day and its hours.
func statsTables(day int) (all []tablePart) {
	for _, scope := range scopes {
		for _, kind := range []StatsKind{Day, Hour} {
			t := tablePart{name: statsTable(scope, kind), scope: scope, kind: kind, from: day, to: day}
			if kind == Hour {
				t.from, t.to = day*100, day*100+23
			}
			t.key = append(slices.Clone(idColumns[scope]), string(kind))
			t.where = " WHERE " + string(kind) + " BETWEEN ? AND ?"
			all = append(all, t)
		}
	}
	return all
}

func (s *Store) dropStats(ctx context.Context, t tablePart, stays func(StatsKind, StatsKey) bool) error {
	gone, err := query(ctx, s, t.name, "SELECT "+strings.Join(t.key, ", ")+" FROM "+t.name+t.where, []any{t.from, t.to},
		func(rows *sql.Rows) (k *StatsKey, err error) {
			k = new(StatsKey)
			switch t.scope {
			case "workers":
				err = rows.Scan(&k.UserID, &k.WorkerID, &k.Period)
			case "users":
				err = rows.Scan(&k.UserID, &k.Period)
			default:
				err = rows.Scan(&k.Period)
			}
			if stays(t.kind, *k) {
				return nil, err
			}
			return k, err
		})
	if err != nil {
		return err
	}
	gone = slices.DeleteFunc(gone, func(k *StatsKey) bool { return k == nil })
	text := "DELETE FROM " + t.name + " WHERE " + strings.Join(t.key, " = ? AND ") + " = ?" //nolint:gosec // names of tables and columns from this package
	for chunk := range slices.Chunk(gone, chunkRows) {
		err := s.transact(ctx, func(tx *sql.Tx) error {
			for _, k := range chunk {
				if _, err := tx.ExecContext(ctx, text, append(k.appendIDs(nil), k.Period)...); err != nil {
					return fmt.Errorf("drop rows of %s: %w", t.name, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
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

func (s *Store) writeStats(ctx context.Context, tx *sql.Tx, kind StatsKind, all []Stats, set []string, now string) error {
	for _, scope := range scopes {
		rows := only(all, scope)
		if len(rows) == 0 {
			continue
		}
		key := append(slices.Clone(idColumns[scope]), string(kind))
		columns := append(append([]string{"created_at"}, key...), measureColumns...)
		ofPool := scope == "pool" && kind == Day
		if ofPool {
			columns = append(columns, "log_bytes")
		}
		err := upsert(ctx, tx, statsTable(scope, kind), columns, s.onConflict(key, set...), rows,
			func(args []any, st Stats) []any {
				args = append(st.appendIDs(append(args, now)), st.Period)
				args = st.appendMeasures(args, now)
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

// only returns the rows of a scope: all itself, where it has no others, as nearly always when there are many.
func only(all []Stats, scope string) (rows []Stats) {
	n := 0
	for i := range all {
		if all[i].scope() == scope {
			n++
		}
	}
	if n == len(all) {
		return all
	}
	rows = make([]Stats, 0, n)
	for i := range all {
		if all[i].scope() == scope {
			rows = append(rows, all[i])
		}
	}
	return rows
}

// ReadStats returns the statistics of one worker, one user (worker 0) or the pool (0, 0) for the periods from..to, both
// included, in their order. Periods without a row are absent. A row that btcpool wrote or updated has its work in whole
// difficulties.
func (s *Store) ReadStats(ctx context.Context, kind StatsKind, userID int32, workerID int64, from, to int) ([]Stats, error) {
	key := StatsKey{UserID: userID, WorkerID: workerID}
	table := statsTable(key.scope(), kind)
	text := "SELECT " + string(kind) + ", share_accept, share_stale, share_reject, reject_detail, reject_detail_hashes, score, earn, " +
		"accept_hashes, stale_hashes, reject_hashes FROM " + table + " WHERE "
	for _, c := range idColumns[key.scope()] {
		text += c + " = ? AND "
	}
	text += string(kind) + " BETWEEN ? AND ? ORDER BY " + string(kind)

	return query(ctx, s, table, text, append(key.appendIDs(nil), from, to), func(rows *sql.Rows) (Stats, error) {
		st := Stats{StatsKey: key}
		var accept, stale, reject int64
		var detail, detailHashes, score, earn, acceptHashes, staleHashes, rejectHashes string
		err := rows.Scan(&st.Period, &accept, &stale, &reject, &detail, &detailHashes, &score, &earn,
			&acceptHashes, &staleHashes, &rejectHashes)
		st.Accept = work(acceptHashes, accept)
		st.Stale = work(staleHashes, stale)
		st.Reject = work(rejectHashes, reject)
		st.RejectDetail = parseDetailHashes(detailHashes, detail)
		st.Score = parseDecimal(score, scoreDigits)
		st.EarnSat = parseDecimal(earn, 0)
		return st, err
	})
}

// acceptedHashes is the accepted work of a row as a float, in SQL what work is in Go: exact, unless the column of whole
// difficulties says something else. What a float does not hold of a difficulty is no difference.
const acceptedHashes = `CASE WHEN ABS(accept_hashes / 4294967296.0e0 - share_accept - 0.5e0) <= 0.5e0 + share_accept * 1.0e-15 ` +
	`THEN accept_hashes + 0.0e0 ELSE share_accept * 4294967296.0e0 END`

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

// SumDays adds up the accepted hashes of the days from..to, both included, of a user (worker 0) and of those of its
// workers. Those without a row are absent.
func (s *Store) SumDays(ctx context.Context, userID int32, workerIDs []int64, from, to int) (map[int64]float64, error) {
	sums := make(map[int64]float64, len(workerIDs)+1)
	add := func(key, table, where string, args []any) error {
		text := "SELECT " + key + ", SUM(" + acceptedHashes + ") FROM " + table + " WHERE puid = ? AND day BETWEEN ? AND ?" + where
		_, err := query(ctx, s, table, text, args, func(rows *sql.Rows) (id int64, err error) {
			var hashes sql.NullFloat64
			err = rows.Scan(&id, &hashes)
			if hashes.Valid {
				sums[id] = hashes.Float64
			}
			return id, err
		})
		return err
	}
	if err := add("0", statsTable("users", Day), "", []any{userID, from, to}); err != nil {
		return nil, err
	}
	for chunk := range slices.Chunk(workerIDs, chunkRows) {
		args := []any{userID, from, to}
		for _, id := range chunk {
			args = append(args, id)
		}
		where := " AND worker_id IN (?" + strings.Repeat(", ?", len(chunk)-1) + ") GROUP BY worker_id"
		if err := add("worker_id", statsTable("workers", Day), where, args); err != nil {
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

// Keep says for how many days statistics stay: those of workers by hour and day, those of users by hour. All others stay
// for ever.
type Keep struct{ WorkerHours, WorkerDays, UserHours int }

// PurgeStats removes what was kept for its time, purgeRows at a time: nobody waits for long. A clock that is far ahead of
// the statistics is not believed: it is not later than the day after the newest.
func (s *Store) PurgeStats(ctx context.Context, now time.Time, keep Keep) error {
	var newest sql.NullInt64
	if err := s.db.QueryRowContext(ctx, "SELECT MAX(day) FROM stats_pool_day").Scan(&newest); err != nil {
		return fmt.Errorf("newest day: %w", err)
	}
	now = now.UTC()
	if day, ok := Day.Start(int(newest.Int64)); ok && now.After(day.AddDate(0, 0, 2)) {
		now = day.AddDate(0, 0, 2)
	}
	for _, p := range []struct {
		scope string
		kind  StatsKind
		days  int
	}{
		{"workers", Hour, keep.WorkerHours},
		{"workers", Day, keep.WorkerDays},
		{"users", Hour, keep.UserHours},
	} {
		table := statsTable(p.scope, p.kind)
		text := s.deleteBelow(table, string(p.kind), purgeRows)
		if err := s.purge(ctx, text, p.kind.Period(now.AddDate(0, 0, -p.days))); err != nil {
			return fmt.Errorf("purge %s: %w", table, err)
		}
	}
	return nil
}

const purgeRows = 1000

// purge repeats a statement until it finds no more rows. Others get as much time as it takes.
func (s *Store) purge(ctx context.Context, text string, before int) error {
	for {
		start := time.Now()
		result, err := s.db.ExecContext(ctx, text, before)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err != nil || n < purgeRows {
			return err
		}
		if !retry.Sleep(ctx, time.Since(start)) {
			return ctx.Err()
		}
	}
}

// Start returns when the period began that Period gives this number; ok is false when there is none.
func (k StatsKind) Start(period int) (start time.Time, ok bool) {
	day, hour := period, 0
	if k == Hour {
		day, hour = period/100, period%100
	}
	start = time.Date(day/10000, time.Month(day/100%100), day%100, hour, 0, 0, 0, time.UTC)
	return start, period > 0 && k.Period(start) == period
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
	digits := n.String()
	if short := scale + 1 - len(digits); short > 0 {
		digits = strings.Repeat("0", short) + digits
	}
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
