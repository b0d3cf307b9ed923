// Package sealed keeps finished days of the share log: one Parquet file a day, beside or in place of the file that
// sharelogger has written, with the same records. Any engine that reads Parquet can sum it.
//
// Rows are sorted by user and worker; the shares of a worker keep the order that they had in the log, because what a
// rejected share counts depends on the worker's accepted share before it. The footer says what the file was made of and
// what it must add up to. A record that the columns cannot give back byte by byte stands in a column of its own.
package sealed

import (
	"errors"
	"path/filepath"
	"time"

	"btcpool/internal/sharefile"
)

var (
	// ErrCorrupt says that a sealed file is not as it was written.
	ErrCorrupt = errors.New("sealed file is corrupt")
	// ErrUnsound says that a day's file cannot be sealed: shares of it are missing or cannot be read.
	ErrUnsound = errors.New("share file is not whole")
	// ErrDiffers says that a sealed day does not hold what the day's file holds.
	ErrDiffers = errors.New("sealed day differs from its source")
)

// Path returns the name of a chain's sealed day in dir.
func Path(dir, chain string, day sharefile.Day) string {
	return filepath.Join(dir, "sharelog"+chain+"-"+day.Start().Format(time.DateOnly)+".parquet")
}
