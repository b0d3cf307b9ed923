package sserver

import (
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func TestTwins(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	var log strings.Builder
	older, twin := newTwins(zerolog.Nop(), now.Add(-time.Hour)), newTwins(zerolog.New(&log), now)
	younger := newTwins(zerolog.Nop(), now.Add(time.Hour))
	want := func(what string, answer bool, count int, ready bool) {
		t.Helper()
		got, _ := twin.look(100, now)
		all, _ := twin.count()
		if err := twin.err(); got != answer || all != count || (err == nil) != ready {
			t.Errorf("%s: answers %v, knows %d, ready: %v", what, got, all, err)
		}
	}
	want("alone", false, 0, true)
	twin.hear(twin.instance, 100, now)
	twin.hear(twin.instance, 100, now)
	want("its own voice", false, 0, true)

	twin.hear(older.instance, 50, now)
	want("a last word, perhaps", true, 0, true)
	now = now.Add(twinPace)
	twin.hear(older.instance, 50, now)
	want("an older one", true, 1, false)
	if _, next := twin.look(100, now); next != 0 {
		t.Errorf("leaves its epoch for %d, though it is its own", next)
	}
	twin.hear(older.instance, 100, now)
	if _, next := twin.look(100, now); next != 101 {
		t.Errorf("an older one has its epoch: goes on with %d", next)
	}
	now = now.Add(twinMemory + 1)
	want("it has fallen silent", false, 0, true)

	twin.rewound(now)
	for range 3 {
		twin.hear(older.instance, 50, now)
	}
	want("one of old, in a topic that is read again", false, 0, true)
	now = now.Add(rewindDeaf)

	twin.hear(younger.instance, 100, now)
	twin.hear(younger.instance, 100, now)
	want("a younger one", true, 1, true)
	if _, next := twin.look(100, now); next != 0 {
		t.Errorf("the older one goes on with %d", next)
	}
	twin.hear(older.instance, 50, now)
	twin.forget()
	want("with another id", false, 0, true)
	if n := strings.Count(log.String(), `"level":"error"`); n != 2 {
		t.Errorf("%d errors logged:\n%s", n, log.String())
	}
	for range 2 * maxTwins { // somebody writes anything into the topic
		twin.hear(newTwins(zerolog.Nop(), now).instance, 1, now)
	}
	if len(twin.heard) > maxTwins {
		t.Errorf("remembers %d", len(twin.heard))
	}
}
