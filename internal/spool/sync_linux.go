package spool

import (
	"os"
	"syscall"
)

// fdatasync brings what was written to disk, and of the file's own data what reading it back needs.
func fdatasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
