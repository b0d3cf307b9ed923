package registry

import (
	"testing"

	"github.com/go-zookeeper/zk"
)

// Whatever comes between asking for a watch and its answer, there is one of a node at a time, and none is counted that is
// not there.
func TestOneWatchOfANode(t *testing.T) {
	t.Parallel()
	var told []string
	w := watches{news: News{Changed: func(path string) { told = append(told, path) }, Connected: func() {}, Lost: func() {}}, most: 2, at: make(map[string]watching)}
	fires := func(path string) { w.hear(zk.Event{Type: zk.EventNodeDataChanged, Path: path}) }
	wants := func(why, path string, wantBegun, wantWatched bool) {
		t.Helper()
		if begun, watched := w.begin(path); begun != wantBegun || watched != wantWatched {
			t.Errorf("%s: begun %v, watched %v", why, begun, watched)
		}
	}
	wants("first", "/a", true, true)
	wants("asked for already", "/a", false, true)
	w.end("/a", true)
	wants("set", "/a", false, true)
	fires("/a")
	wants("used up", "/a", true, true)
	fires("/a") // before its answer is seen
	w.end("/a", true)
	wants("used up at once", "/a", true, true)
	w.end("/a", false)
	wants("it failed", "/a", true, true)
	w.end("/a", true)
	wants("another", "/b", true, true)
	w.end("/b", true)
	wants("one too many", "/c", false, false)
	fires("/b")
	wants("there is room again", "/c", true, true)
	if len(told) != 3 {
		t.Errorf("told of %v", told)
	}
}
