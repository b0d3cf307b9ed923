package registry

import (
	"context"
	"errors"
	"sync"

	"github.com/go-zookeeper/zk"
)

// News is what ZooKeeper tells a Watcher. Its functions are called by one goroutine at a time and must not wait.
type News struct {
	// Changed says that a node that is watched was made, written or removed. It is watched no more.
	Changed func(path string)
	// Connected says that there is a session again: what came of nodes meanwhile may have gone untold.
	Connected func()
	// Lost says that the connection has ended.
	Lost func()
}

// Watcher is Nodes that ZooKeeper tells of changes.
type Watcher struct{ *Nodes }

// Watcher opens a session, which is named after base in the log and in metrics. At most so many nodes are watched: names
// may be anybody's choice, and a watch on a node that never comes stays as long as the session.
func (r *Registry) Watcher(base string, news News, most int) (Watcher, error) {
	if len(r.cfg.Servers) == 0 {
		return Watcher{}, errors.New("zookeeper.servers: must name the servers that have the nodes")
	}
	n := &Nodes{room: make(chan struct{}, maxCalls), watches: watches{news: news, most: most, at: make(map[string]watching)}}
	var err error
	if n.session, err = r.openTold(base, n.watches.hear); err != nil {
		return Watcher{}, err
	}
	return Watcher{n}, nil
}

// Watch is Get that has the node watched, whether it is there or not, until News.Changed names it; watched is false if
// too many are. The client library cannot take a watch back, so there is never more than one of a node, however often
// Watch is called.
func (w Watcher) Watch(ctx context.Context, path string) (n Node, watched bool, err error) {
	type answer struct {
		Node
		watched bool
	}
	a, err := call(ctx, w.Nodes, path, func(c *zk.Conn) (answer, error) {
		begun, watched := w.watches.begin(path)
		if !begun {
			n, err := node(c.Get(path))
			return answer{n, watched}, err
		}
		content, stat, _, err := c.GetW(path)
		if errors.Is(err, zk.ErrNoNode) {
			var there bool
			there, _, _, err = c.ExistsW(path)
			w.watches.end(path, err == nil)
			switch {
			case err != nil:
				return answer{}, err
			case !there:
				return answer{watched: true}, zk.ErrNoNode
			}
			n, err := node(c.Get(path))
			return answer{n, true}, err
		}
		w.watches.end(path, err == nil)
		n, err := node(content, stat, err)
		return answer{n, true}, err
	})
	return a.Node, a.watched, err
}

// Watches returns how many nodes are watched.
func (w Watcher) Watches() int {
	w.watches.mu.Lock()
	defer w.watches.mu.Unlock()
	return len(w.watches.at)
}

func node(content []byte, stat *zk.Stat, err error) (Node, error) {
	if err != nil {
		return Node{}, err
	}
	return Node{content, stat.Version, stat.Mzxid}, nil
}

// watching is how far a watch has come.
type watching uint8

const (
	watchAsked watching = iota // ZooKeeper has not answered yet
	watchTold                  // it has told already, before its answer was seen
	watchSet
)

// watches are those of a session.
type watches struct {
	news News
	most int

	mu sync.Mutex
	at map[string]watching
}

// begin reports whether a watch is to be set, because there is none, and whether the node is watched then.
func (w *watches) begin(path string) (begun, watched bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, there := w.at[path]; there {
		return false, true
	}
	if len(w.at) >= w.most {
		return false, false
	}
	w.at[path] = watchAsked
	return true, true
}

// end notes whether it was.
func (w *watches) end(path string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ok && w.at[path] == watchAsked {
		w.at[path] = watchSet
		return
	}
	delete(w.at, path)
}

// hear takes in an event. When a session expires there is one for each node that was watched, too.
func (w *watches) hear(e zk.Event) {
	if e.Type == zk.EventSession {
		switch e.State {
		case zk.StateHasSession:
			w.news.Connected()
		case zk.StateDisconnected:
			w.news.Lost()
		}
		return
	}
	w.mu.Lock()
	switch state, there := w.at[e.Path]; {
	case !there:
	case state == watchAsked:
		w.at[e.Path] = watchTold
	default:
		delete(w.at, e.Path)
	}
	w.mu.Unlock()
	w.news.Changed(e.Path)
}
