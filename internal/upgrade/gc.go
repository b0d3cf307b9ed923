package upgrade

import (
	"runtime/debug"
	"sync"
)

// collection says who has it wait: in tests, both processes are one.
var collection struct {
	sync.Mutex
	waiting int
	percent int // before
}

// WithoutGC has the collection of memory wait until resume, while miners do. What is made meanwhile is bounded by what
// there is to move; a limit of memory, if one is set, is kept.
func WithoutGC() (resume func()) {
	collection.Lock()
	defer collection.Unlock()
	if collection.waiting++; collection.waiting == 1 {
		collection.percent = debug.SetGCPercent(-1)
	}
	return func() {
		collection.Lock()
		defer collection.Unlock()
		if collection.waiting--; collection.waiting == 0 {
			debug.SetGCPercent(collection.percent)
		}
	}
}
