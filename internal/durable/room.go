package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Writable tells whether files can be written in dir: it brings one to disk and removes it again, and wants room for so
// many bytes besides.
func Writable(dir string, room uint64) error {
	path := filepath.Join(dir, "writable")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.WriteString("this file is written to see whether that is possible\n")
	if err = errors.Join(err, f.Sync(), f.Close(), os.Remove(path)); err != nil {
		return err
	}
	free, err := freeBytes(dir)
	if err == nil && free < room {
		err = fmt.Errorf("%s has %d bytes free, and %d may be needed", dir, free, room)
	}
	return err
}
