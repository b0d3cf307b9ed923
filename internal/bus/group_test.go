package bus_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"btcpool/internal/bus"
)

func TestGroups(t *testing.T) {
	t.Parallel()
	c, cfg := newBus(t, 3)
	testGroups(t, c, cfg.Topics.Share)
}

func testGroups(t *testing.T, c *bus.Client, topic string) {
	t.Helper()
	ctx := testContext(t)
	must(t, c.EnsureTopics(ctx, topic))
	check := func(group string, want map[int]bus.Committed) {
		t.Helper()
		got, err := c.Committed(ctx, group, topic)
		must(t, err)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Error(group, diff)
		}
	}
	check("log", nil)
	must(t, c.Commit(ctx, "log", topic, map[int]int64{0: 7}, ""))
	check("log", map[int]bus.Committed{0: {Next: 7}})
	must(t, c.Commit(ctx, "log", topic, map[int]int64{0: 5, 2: 9}, "note"))
	check("log", map[int]bus.Committed{0: {Next: 5, Note: "note"}, 2: {Next: 9, Note: "note"}})
	check("other", nil)
}
