package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"btcpool/internal/retry"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

type sqliteDialect struct{ path string }

// parseSQLite reads what follows "sqlite:": the path of a file.
func parseSQLite(path string) (dialect, error) {
	if path == "" || strings.HasPrefix(path, ":") || strings.ContainsRune(path, '?') {
		return nil, errors.New("must name a file, like sqlite:/path/file.db, without parameters")
	}
	return sqliteDialect{path}, nil
}

func (d sqliteDialect) name() string { return d.path }

// open: with the write-ahead log readers never wait for the writer; a transaction takes the write lock when it begins,
// so it waits there, for up to 10 s, and never fails half way for another writer's sake.
func (d sqliteDialect) open() (*sql.DB, error) {
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: d.path}).EscapedPath(), RawQuery: url.Values{
		"_txlock": {"immediate"},
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)", "foreign_keys(ON)"},
	}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	return db, nil
}

// migrate holds a lock on a file beside the database: SQLite itself has none that would last over several transactions.
func (d sqliteDialect) migrate(ctx context.Context, db *sql.DB) error {
	unlock, err := lockFile(ctx, d.path+".lock")
	if err != nil {
		return err
	}
	return errors.Join(migrateUp(ctx, db, goose.DialectSQLite3, "sqlite"), unlock())
}

// lockFile waits until no other process holds path, or ctx ends. The file stays; the lock goes with its holder.
func lockFile(ctx context.Context, path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		if !retry.Sleep(ctx, 20*time.Millisecond) {
			return nil, errors.Join(fmt.Errorf("lock %s, held by another process: %w", path, ctx.Err()), f.Close())
		}
	}
}

func (sqliteDialect) onConflict(key []string, assignments ...string) string {
	target := " ON CONFLICT (" + strings.Join(key, ", ") + ") DO "
	if len(assignments) == 0 {
		return target + "NOTHING"
	}
	return target + "UPDATE SET " + strings.Join(assignments, ", ")
}

func (sqliteDialect) incoming(column string) string { return "excluded." + column }

// deleteBelow does without DELETE's own LIMIT: SQLite is rarely built with it.
func (sqliteDialect) deleteBelow(table, column string, most int) string {
	return fmt.Sprintf("DELETE FROM %s WHERE rowid IN (SELECT rowid FROM %s WHERE %s < ? ORDER BY %s LIMIT %d)", table, table, column, column, most)
}

// unsigned keeps the bits: SQLite's integers have a sign.
func (sqliteDialect) unsigned(v uint64) any { return int64(v) }
