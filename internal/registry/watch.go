package registry

import (
	"context"
	"errors"
	"time"

	"github.com/go-zookeeper/zk"
)

const (
	// watchAgain is how long a change may go unnoticed of which ZooKeeper does not tell.
	watchAgain = 5 * time.Minute
	// watchRetry is the pause after a failure.
	watchRetry = 5 * time.Second
)

// Host tells people who has written something.
type Host struct {
	Hostname string `json:"hostname"`
	IP       string `json:"ip"` // the address by which it reaches ZooKeeper; "" while it does not
}

// Watch calls take with what is in the node at path, at first and after each change, until ctx ends; it waits for a
// node that is not there. What take returns is written to <path>/ack, for whoever made the change. After a failure take
// is called with the same again.
func (r *Registry) Watch(ctx context.Context, path string, take func(content []byte, self Host) (answer []byte)) error {
	if len(r.cfg.Servers) == 0 {
		return errors.New("watching needs zookeeper.servers")
	}
	s, err := r.open(path)
	if err != nil {
		return err
	}
	defer s.close()
	defer context.AfterFunc(ctx, s.close)()
	w := &watch{session: s, take: take}
	for ctx.Err() == nil {
		wait := watchAgain
		if err := w.look(); err != nil {
			s.waiting(err)
			wait = watchRetry
		}
		select {
		case <-ctx.Done():
		case <-w.changed:
			w.changed = nil
		case <-time.After(wait):
		}
	}
	return nil
}

// watch is a node that is watched.
type watch struct {
	*session
	take    func(content []byte, self Host) (answer []byte)
	changed <-chan zk.Event // nil: ZooKeeper is not asked to tell
	taken   int64           // the transaction that wrote what was taken last
}

// look reads the node and takes in what is new.
func (w *watch) look() error {
	content, stat, err := w.read()
	if stat == nil || err != nil || stat.Mzxid == w.taken {
		return err
	}
	if err := w.answer(w.take(content, w.host())); err != nil {
		return err
	}
	w.taken = stat.Mzxid
	return nil
}

// read returns what is in the node, no stat if it is not there. Watches stay until they are used, so there is never
// more than one.
func (w *watch) read() (content []byte, stat *zk.Stat, err error) {
	if w.changed == nil {
		if content, stat, w.changed, err = w.conn.GetW(w.path); !errors.Is(err, zk.ErrNoNode) {
			return content, stat, err
		}
		if _, _, w.changed, err = w.conn.ExistsW(w.path); err != nil {
			return nil, nil, err
		}
	}
	content, stat, err = w.conn.Get(w.path)
	if errors.Is(err, zk.ErrNoNode) {
		return nil, nil, nil
	}
	return content, stat, err
}

func (w *watch) answer(text []byte) error {
	node := w.path + "/ack"
	_, err := w.conn.Set(node, text, -1)
	if errors.Is(err, zk.ErrNoNode) {
		_, err = w.conn.Create(node, text, 0, zk.WorldACL(zk.PermAll))
	}
	if errors.Is(err, zk.ErrNodeExists) { // another process was faster
		_, err = w.conn.Set(node, text, -1)
	}
	return err
}
