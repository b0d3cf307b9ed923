package service_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"btcpool/internal/service"
)

// A log file goes on where it was, follows a renaming when it is told, and one old file is kept when it is full.
func TestLogFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "frame.log")
	open := func() *service.LogFile {
		t.Helper()
		l, err := service.OpenLogFile(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	holds := func(path, want string) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil || string(text) != want {
			t.Errorf("%s holds %.50q, %v, want %.50q", filepath.Base(path), text, err, want)
		}
	}
	write := func(l *service.LogFile, text string) {
		t.Helper()
		if _, err := l.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	l := open()
	write(l, "a\n")
	l.Close()
	l = open()
	write(l, "b\n")
	holds(path, "a\nb\n")

	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	write(l, "c\n")
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	write(l, "d\n")
	holds(path+".old", "a\nb\nc\n")
	holds(path, "d\n")

	l.SetLimit(8)
	for _, line := range []string{"12345\n", "e\n", "f\n", strings.Repeat("g", 20) + "\n", "h\n"} {
		write(l, line)
	}
	holds(path+".1", strings.Repeat("g", 20)+"\n")
	holds(path, "h\n")

	// A full file that cannot be renamed begins anew.
	if err := os.Remove(path + ".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path+".1", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(l, "1234567\n")
	holds(path, "1234567\n")

	if _, err := service.OpenLogFile(filepath.Join(path, "x")); err == nil || !strings.HasPrefix(err.Error(), "log file: ") {
		t.Errorf("a folder that is none: %v", err)
	}
}
