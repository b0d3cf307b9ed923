package blkmaker

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/google/go-cmp/cmp"
)

func TestArchive(t *testing.T) {
	t.Parallel()
	a, err := openArchive(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	old, young := &block{height: 5, hash: chainhash.Hash{5}}, &block{height: 6, hash: chainhash.Hash{6}}
	for _, b := range []*block{old, young, young} {
		if err := a.write(b, "00ff"); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	if err := os.Chtimes(filepath.Join(string(a), "5-"+old.hash.String()+".hex"), now, now.Add(-archiveFor-time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := a.prune(now); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(string(a), "*"))
	if err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(string(a), "6-"+young.hash.String()+".hex")
	if diff := cmp.Diff([]string{want}, files); diff != "" {
		t.Error(diff)
	}
	if text, err := os.ReadFile(want); err != nil || string(text) != "00ff" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestArchiveCannotBeMade(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openArchive(file); err == nil {
		t.Error("no error")
	}
}
