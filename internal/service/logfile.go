package service

import (
	"fmt"
	"os"
	"sync"
)

// maxLogFile bounds a log file, in bytes. One that is full is kept under its name with ".1" behind it, in the place of the
// one before.
const maxLogFile = 16 << 20

// LogFile is a log in a file, which has a bound. Its methods may be called from any goroutine.
type LogFile struct {
	path  string
	limit int64

	mu   sync.Mutex
	file *os.File // nil: it could not be opened again
	size int64
}

// OpenLogFile opens the file at path, and makes it if there is none.
func OpenLogFile(path string) (*LogFile, error) {
	l := &LogFile{path: path, limit: maxLogFile}
	return l, l.Reopen()
}

// Reopen goes on in the file that is at the path now: the old one may have been renamed.
func (l *LogFile) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open()
}

// open keeps the file it has if there is no other.
func (l *LogFile) open() error {
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("log file: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return fmt.Errorf("log file: %w", err)
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.size = file, info.Size()
	return nil
}

// Write appends b, a line.
func (l *LogFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil && l.size+int64(len(b)) > l.limit && l.size > 0 {
		l.file.Close() // Windows does not rename what is open
		l.file = nil
		if os.Rename(l.path, l.path+".1") != nil { // in a folder that is not ours
			_ = os.Truncate(l.path, 0) // or it has been removed
		}
	}
	if l.file == nil {
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(b)
	l.size += int64(n)
	return n, err
}

// Close closes the file. What is written later opens it again.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
