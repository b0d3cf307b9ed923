package durable_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"btcpool/internal/durable"
)

func TestReplace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	for _, content := range []string{"first", "second, longer", ""} {
		if err := durable.Replace(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("got %q, %v, want %q", got, err, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files left, %v", len(entries), err)
	}
}

// TestReplaceFails wants the old content to stay when the new one cannot be written.
func TestReplaceFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(path, []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced by a file")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%d files left, %v", len(entries), err)
	}
}

func TestWritable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := durable.Writable(dir, 1); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%d files left, %v", len(entries), err)
	}
	if err := durable.Writable(dir, math.MaxUint64); err == nil {
		t.Error("there is room for anything")
	}
	if err := durable.Writable(filepath.Join(dir, "missing"), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in no folder: %v", err)
	}
}

func TestFrame(t *testing.T) {
	t.Parallel()
	frame := append(make([]byte, durable.FrameHead), "body"...)
	durable.SealFrame(frame)
	body, size, err := durable.CutFrame(append(bytes.Clone(frame), "next"...), 1, 10)
	if string(body) != "body" || size != len(frame) || err != nil {
		t.Errorf("got %q, %d, %v", body, size, err)
	}
	for n := range frame {
		if _, _, err := durable.CutFrame(frame[:n], 1, 10); !errors.Is(err, durable.ErrShort) {
			t.Errorf("%d bytes: got %v, want ErrShort", n, err)
		}
	}
	for i := range frame {
		bad := bytes.Clone(frame)
		bad[i] ^= 1
		if _, _, err := durable.CutFrame(bad, 1, 10); err == nil {
			t.Errorf("byte %d flipped: taken", i)
		}
	}
	for _, bounds := range [][2]int{{5, 10}, {1, 3}} {
		if _, _, err := durable.CutFrame(frame, bounds[0], bounds[1]); !errors.Is(err, durable.ErrCorrupt) {
			t.Errorf("bounds %v: got %v, want ErrCorrupt", bounds, err)
		}
	}
}

func FuzzCutFrame(f *testing.F) {
	frame := append(make([]byte, durable.FrameHead), "seed"...)
	durable.SealFrame(frame)
	f.Add(frame)
	f.Add(frame[:5])
	f.Fuzz(func(t *testing.T, in []byte) {
		body, size, err := durable.CutFrame(in, 1, 1<<20)
		if err != nil {
			return
		}
		again := append(make([]byte, durable.FrameHead), body...)
		durable.SealFrame(again)
		if !bytes.Equal(again, in[:size]) {
			t.Fatalf("%x is not stable: %x", in[:size], again)
		}
	})
}
