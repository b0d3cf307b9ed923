package users

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A user that is new while the whole list is read stays, though the list may not have it.
func TestFoundWhileReading(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, l *List, dir testDirectory) {
		dir.lists <- map[string]int32{"bob": 1, "carol": 2}
		dir.lists <- nil
		synctest.Wait()
		time.Sleep(l.cfg.ReloadInterval.Std() + pageTimeout/2) // the first page is awaited
		go func() { dir.finds <- nil }()
		if _, err := l.ID(t.Context(), "alice"); err != nil {
			t.Error(err)
		}
		dir.lists <- map[string]int32{"bob": 3}
		dir.lists <- nil
		synctest.Wait()
		if diff := cmp.Diff(map[string]int32{"alice": 7, "bob": 3}, l.copyOfIDs()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// BenchmarkReadAll reads a million users again, of which none has changed.
func BenchmarkReadAll(b *testing.B) {
	l := openList(b, DefaultConfig(), b.TempDir())
	pages := make(pagedDirectory, 100)
	for i := range pages {
		pages[i] = make(map[string]int32, pageRows)
		for n := range pageRows {
			id := int32(i*pageRows + n + 1)
			pages[i][fmt.Sprint("user", id)] = id
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.readAll(b.Context(), pages); err != nil {
			b.Fatal(err)
		}
	}
}

type pagedDirectory []map[string]int32

func (d pagedDirectory) list(_ context.Context, after int32) (map[string]int32, error) {
	if page := int(after) / pageRows; page < len(d) {
		return d[page], nil
	}
	return nil, nil
}

func (pagedDirectory) find(context.Context, string) (int32, error) { return 0, ErrUnknown }
