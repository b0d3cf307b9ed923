// Package store keeps what the pool must not forget besides shares: found blocks, statistics, workers and users, in
// MySQL (or MariaDB) or SQLite.
//
// The tables are btcpool's, with the same names, columns and keys; columns of our own stand behind those and have
// defaults, so old writers and readers go on working against the same database. The migrations beside this file are the
// schema's only description, and Open applies what is missing of them.
//
// A Store is safe for concurrent use. Every method takes one round trip or one transaction, returns the driver's error
// wrapped when the database is away, and may be repeated without changing its effect.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"btcpool/internal/config"
	"btcpool/internal/retry"

	"github.com/pressly/goose/v3"
	"github.com/rs/zerolog"
)

// ErrNotFound says that there is no such row.
var ErrNotFound = errors.New("not found")

// openTimeout bounds Open, migrations included.
const openTimeout = time.Minute

//go:embed migrations
var migrations embed.FS

// Config says where the database is: the [database] section of a service.
type Config struct {
	// DSN is what Open takes.
	DSN string `toml:"dsn" env:"DATABASE_DSN"`
	// DSNFile names a file that holds the DSN: it keeps the password out of the configuration.
	DSNFile string `toml:"dsn_file" env:"DATABASE_DSN_FILE"`
}

func (c Config) dsn() config.Secret {
	return config.Secret{Key: "database.dsn", Value: c.DSN, File: c.DSNFile}
}

// Name tells the database from others, without a login: host and name, or the file.
func (c Config) Name() (string, error) {
	dsn, err := c.dsn().Read()
	if err != nil {
		return "", err
	}
	d, err := parseDSN(dsn)
	if err != nil {
		return "", err
	}
	return d.name(), nil
}

// Open is the function Open for what c names.
func (c Config) Open(ctx context.Context) (*Store, error) {
	dsn, err := c.dsn().Read()
	if err != nil {
		return nil, err
	}
	return Open(ctx, dsn)
}

// Look is Open for who only looks: the schema stays as it is.
func (c Config) Look(ctx context.Context) (*Store, error) {
	dsn, err := c.dsn().Read()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	return open(ctx, dsn)
}

// Validate reports a missing, doubled or misspelt data source. A file is judged when it is needed.
func (c Config) Validate() error {
	if c.dsn().IsZero() {
		return errors.New(`database.dsn: must be set, like "mysql://user:password@tcp(host:3306)/name" or "sqlite:/path/file.db"`)
	}
	if err := c.dsn().Validate(); err != nil || c.DSN == "" {
		return err
	}
	if _, err := parseDSN(c.DSN); err != nil {
		return fmt.Errorf("database.dsn: %w", err)
	}
	return nil
}

// Store is an open database of the pool.
type Store struct {
	db *sql.DB
	dialect
}

// dialect is what differs between the engines. SQL that both understand stands beside the method that uses it.
type dialect interface {
	// name tells the database from others, without a login.
	name() string
	// open returns a handle of the database; no connection is made yet.
	open() (*sql.DB, error)
	// migrate applies what is missing of the schema, one process at a time.
	migrate(ctx context.Context, db *sql.DB) error
	// onConflict ends an INSERT: what happens to a row whose key is there already. Without assignments the old row
	// stays as it is.
	onConflict(key []string, assignments ...string) string
	// incoming names the value that the row being inserted has for column.
	incoming(column string) string
	// deleteBelow is a statement that deletes up to so many rows of a table whose column, which has an index, is below an
	// argument: those with the least. It locks no others.
	deleteBelow(table, column string, most int) string
	// unsigned makes an argument of v for a column of 64 bits without sign.
	unsigned(v uint64) any
}

// Open opens the database that dsn names and brings its schema up to date:
//
//	mysql://user:password@tcp(host:3306)/name    MySQL 8, MariaDB 10.6 or newer
//	sqlite:/path/file.db                         made when it is missing
//
// Behind the scheme, MySQL's form is that of github.com/go-sql-driver/mysql, its parameters included. Open fails within
// seconds when the database is away; see Connect.
func Open(ctx context.Context, dsn string) (*Store, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	s, err := open(ctx, dsn)
	if err != nil {
		return nil, err
	}
	if err := s.migrate(ctx, s.db); err != nil {
		return nil, errors.Join(fmt.Errorf("migrate database: %w", err), s.Close())
	}
	return s, nil
}

func open(ctx context.Context, dsn string) (*Store, error) {
	d, err := parseDSN(dsn)
	if err != nil {
		return nil, err
	}
	db, err := d.open()
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	s := &Store{db: db, dialect: d}
	if err := s.Ping(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// connectPace is that of tries to open a database that is away.
var connectPace = retry.Pace{First: 200 * time.Millisecond, Longest: 10 * time.Second}

// Connect is Open for services: it tries again, ever more slowly, until the database is there, and logs what is to be
// done. Its only error is that ctx has ended.
func Connect(ctx context.Context, cfg Config, log zerolog.Logger) (s *Store, err error) {
	err = retry.Do(ctx, connectPace, func() error {
		dsn, err := cfg.dsn().Read()
		if err == nil {
			s, err = Open(ctx, dsn)
		}
		return err
	}, func(err error, pause time.Duration) {
		log.Warn().Err(err).Dur("retry_ms", pause).
			Msg("database not usable: check that it runs and that database.dsn names it; trying again")
	})
	return s, err
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.db.PingContext(ctx); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	return nil
}

// Close ends all connections.
func (s *Store) Close() error { return s.db.Close() }

func parseDSN(dsn string) (dialect, error) {
	scheme, rest, _ := strings.Cut(dsn, ":")
	switch scheme {
	case "mysql":
		return parseMySQL(strings.TrimPrefix(rest, "//"))
	case "sqlite":
		return parseSQLite(strings.TrimPrefix(rest, "//"))
	}
	return nil, errors.New(`must begin with "mysql://" or "sqlite:"`)
}

// migrateUp applies the migrations in the folder named after dialect.
func migrateUp(ctx context.Context, db *sql.DB, dialect goose.Dialect, folder string, opts ...goose.ProviderOption) error {
	files, err := fs.Sub(migrations, "migrations/"+folder)
	if err != nil {
		return err
	}
	opts = append(opts, goose.WithDisableGlobalRegistry(true))
	p, err := goose.NewProvider(dialect, db, files, opts...)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// transact runs do in a transaction.
func (s *Store) transact(ctx context.Context, do func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// query returns what scan makes of the rows of a SELECT; what names it in errors.
func query[R any](ctx context.Context, s *Store, what, text string, args []any, scan func(*sql.Rows) (R, error)) (all []R, err error) {
	defer func() {
		if err != nil {
			all, err = nil, fmt.Errorf("read %s: %w", what, err)
		}
	}()
	rows, err := s.db.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		r, err := scan(rows)
		if err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		all = append(all, r)
	}
	return all, errors.Join(rows.Err(), rows.Close())
}

// queryMap returns the rows of a SELECT of two columns, the second by the first.
func queryMap[K comparable, V any](ctx context.Context, s *Store, what, text string, args ...any) (map[K]V, error) {
	all := make(map[K]V)
	_, err := query(ctx, s, what, text, args, func(rows *sql.Rows) (value V, err error) {
		var key K
		err = rows.Scan(&key, &value)
		all[key] = value
		return value, err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// chunkRows bounds a statement: SQLite takes 32,766 arguments.
const chunkRows = 500

// upsert inserts rows into table, a chunk of them a statement; tail is what onConflict made.
func upsert[R any](ctx context.Context, tx *sql.Tx, table string, columns []string, tail string, rows []R, appendArgs func([]any, R) []any) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", table, err)
		}
	}()
	row := "(?" + strings.Repeat(", ?", len(columns)-1) + ")"
	insert := func(rows int) string {
		return "INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES " + row + strings.Repeat(", "+row, rows-1) + tail
	}
	var whole *sql.Stmt // of a whole chunk: parsing it takes as long as inserting its rows
	if len(rows) >= 2*chunkRows {
		if whole, err = tx.PrepareContext(ctx, insert(chunkRows)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, whole.Close()) }()
	}
	values := make([]any, 0, min(len(rows), chunkRows)*len(columns))
	for chunk := range slices.Chunk(rows, chunkRows) {
		values = values[:0]
		for _, r := range chunk {
			values = appendArgs(values, r)
		}
		if whole != nil && len(chunk) == chunkRows {
			_, err = whole.ExecContext(ctx, values...)
		} else {
			_, err = tx.ExecContext(ctx, insert(len(chunk)), values...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// replace makes the assignments that give columns their incoming values.
func (s *Store) replace(columns ...string) []string {
	set := make([]string, len(columns))
	for i, c := range columns {
		set[i] = c + " = " + s.incoming(c)
	}
	return set
}

// timestamp is t as both engines take and compare it: UTC, whole seconds.
func timestamp(t time.Time) string { return t.UTC().Format(time.DateTime) }

// truncate cuts text to n characters: what a varchar(n) holds.
func truncate(text string, n int) string {
	text = strings.ToValidUTF8(text, "?")
	for i := range text {
		if n == 0 {
			return text[:i]
		}
		n--
	}
	return text
}
