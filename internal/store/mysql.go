package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

type mysqlDialect struct{ cfg *mysql.Config }

// parseMySQL reads what follows "mysql://". Times are UTC whatever the DSN or the server say.
func parseMySQL(dsn string) (dialect, error) {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("%w; want mysql://user:password@tcp(host:3306)/name", err)
	}
	if cfg.DBName == "" {
		return nil, errors.New("must end with the name of a database, like mysql://user:password@tcp(host:3306)/name")
	}
	cfg.ParseTime = true
	cfg.Loc = time.UTC
	cfg.InterpolateParams = true // one round trip a statement
	cfg.ClientFoundRows = true   // an UPDATE counts the rows it found
	if cfg.Params == nil {
		cfg.Params = make(map[string]string)
	}
	cfg.Params["time_zone"] = "'+00:00'"
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Second)
	cfg.ReadTimeout = cmp.Or(cfg.ReadTimeout, 30*time.Second)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, 30*time.Second)
	cfg.Logger = &mysql.NopLogger{} // all it has to say is in the errors it returns
	return mysqlDialect{cfg}, nil
}

func (d mysqlDialect) name() string { return d.cfg.Addr + "/" + d.cfg.DBName }

func (d mysqlDialect) open() (*sql.DB, error) {
	connector, err := mysql.NewConnector(d.cfg)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(8)
	db.SetConnMaxIdleTime(time.Minute)
	return db, nil
}

// migrate holds goose's lock table: without it two starters race. Its intervals are shortened from 5 s, which a starter
// that waits would feel; a holder that was killed blocks others for the lease.
func (d mysqlDialect) migrate(ctx context.Context, db *sql.DB) error {
	locker, err := lock.NewMySQLTableLocker(
		lock.WithTableLockTimeout(100*time.Millisecond, 400),
		lock.WithTableUnlockTimeout(100*time.Millisecond, 50),
		lock.WithTableLeaseDuration(15*time.Second),
		lock.WithTableHeartbeatInterval(3*time.Second),
		lock.WithTableLogger(slog.New(slog.DiscardHandler)),
	)
	if err != nil {
		return err
	}
	return migrateUp(ctx, db, goose.DialectMySQL, "mysql", goose.WithLocker(locker))
}

// onConflict uses VALUES(), which MySQL calls deprecated: its successor is unknown to MariaDB.
func (mysqlDialect) onConflict(key []string, assignments ...string) string {
	if len(assignments) == 0 {
		assignments = []string{key[0] + " = " + key[0]}
	}
	return " ON DUPLICATE KEY UPDATE " + strings.Join(assignments, ", ")
}

func (mysqlDialect) incoming(column string) string { return "VALUES(" + column + ")" }

// deleteBelow has an order, so that the engine goes by the index: a search through the table would lock all that it meets.
func (mysqlDialect) deleteBelow(table, column string, most int) string {
	return fmt.Sprintf("DELETE FROM %s WHERE %s < ? ORDER BY %s LIMIT %d", table, column, column, most)
}

func (mysqlDialect) unsigned(v uint64) any { return v }
