package users

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"btcpool/internal/store"
	"btcpool/internal/telemetry"
)

// Sources that are the same share a list.
func TestListPerSource(t *testing.T) {
	t.Parallel()
	static := func(id int32) Source { return Source{Kind: Static, Static: map[string]int32{"Alice": id}} }
	sources := []Source{static(1), static(1), static(2), {Kind: Open}}
	lists, err := New("sserver", DefaultConfig(), sources, t.TempDir(), store.Config{}, telemetry.Deps{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, source := range sources {
		l := lists.Of(source)
		id, _ := l.Cached("alice")
		got = append(got, fmt.Sprint(l.cfg.Kind, id))
	}
	if diff := cmp.Diff([]string{"static1", "static1", "static2", "open0"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(lists.lists) != 3 {
		t.Errorf("%d lists", len(lists.lists))
	}
}
