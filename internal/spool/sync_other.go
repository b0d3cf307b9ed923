//go:build !linux

package spool

import "os"

// fdatasync brings what was written to disk. There is nothing cheaper here.
func fdatasync(f *os.File) error { return f.Sync() }
