package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/go-zookeeper/zk"
)

// What the nodes of others are like.
var (
	ErrNoNode  = errors.New("there is no such node")
	ErrExists  = errors.New("the node is there already")
	ErrChanged = errors.New("the node was changed meanwhile")
)

// maxCalls is how many calls ZooKeeper may owe an answer to; one more waits.
const maxCalls = 64

// Nodes reads and writes nodes that stay when their writer goes, in one session. Its methods may be called at the same
// time. A call ends with its context, though the client library knows none: ZooKeeper may do it later all the same, but
// not after a later call, so whoever writes by version overwrites nothing.
type Nodes struct {
	session *session
	room    chan struct{}
	calls   sync.WaitGroup
	watches watches
}

// Node is what ZooKeeper has of a node.
type Node struct {
	Content []byte
	Version int32
	// Written is the number of the transaction that wrote it last. It grows over all nodes.
	Written int64
}

// Nodes opens a session, which is named after base in the log and in metrics.
func (r *Registry) Nodes(base string) (*Nodes, error) {
	if len(r.cfg.Servers) == 0 {
		return nil, errors.New("zookeeper.servers: must name the servers that have the nodes")
	}
	s, err := r.open(base)
	if err != nil {
		return nil, err
	}
	return &Nodes{session: s, room: make(chan struct{}, maxCalls)}, nil
}

// Close ends the session.
func (n *Nodes) Close() error {
	n.session.close()
	n.calls.Wait()
	return nil
}

// Get reads a node; ErrNoNode if there is none.
func (n *Nodes) Get(ctx context.Context, path string) (Node, error) {
	return call(ctx, n, path, func(c *zk.Conn) (Node, error) {
		return node(c.Get(path))
	})
}

// Children lists the names of the nodes below one; none if that is not there.
func (n *Nodes) Children(ctx context.Context, path string) ([]string, error) {
	names, err := call(ctx, n, path, func(c *zk.Conn) ([]string, error) {
		names, _, err := c.Children(path)
		return names, err
	})
	if errors.Is(err, ErrNoNode) {
		return nil, nil
	}
	return names, err
}

// Create makes a node that stays, and those above it; ErrExists if there is one.
func (n *Nodes) Create(ctx context.Context, path string, content []byte) error {
	err := n.create(ctx, path, content)
	if !errors.Is(err, ErrNoNode) {
		return err
	}
	for i := 1; i < len(path); i++ {
		if path[i] != '/' {
			continue
		}
		if err := n.create(ctx, path[:i], nil); err != nil && !errors.Is(err, ErrExists) {
			return err
		}
	}
	return n.create(ctx, path, content)
}

func (n *Nodes) create(ctx context.Context, path string, content []byte) error {
	_, err := call(ctx, n, path, func(c *zk.Conn) (string, error) {
		return c.Create(path, content, 0, zk.WorldACL(zk.PermAll))
	})
	return err
}

// Set writes a node that has this version still, or any if it is -1, and returns the number of the transaction;
// ErrChanged, ErrNoNode.
func (n *Nodes) Set(ctx context.Context, path string, content []byte, version int32) (written int64, err error) {
	return call(ctx, n, path, func(c *zk.Conn) (int64, error) {
		stat, err := c.Set(path, content, version)
		if err != nil {
			return 0, err
		}
		return stat.Mzxid, nil
	})
}

// Delete removes a node, which need not be there.
func (n *Nodes) Delete(ctx context.Context, path string) error {
	_, err := call(ctx, n, path, func(c *zk.Conn) (struct{}, error) { return struct{}{}, c.Delete(path, -1) })
	if errors.Is(err, ErrNoNode) {
		return nil
	}
	return err
}

// call has f ask ZooKeeper.
func call[T any](ctx context.Context, n *Nodes, path string, f func(*zk.Conn) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	select {
	case n.room <- struct{}{}:
	case <-ctx.Done():
		return none, fmt.Errorf("ZooKeeper %s: %w", path, ctx.Err())
	}
	done := make(chan result, 1)
	n.calls.Go(func() {
		defer func() { <-n.room }()
		value, err := f(n.session.conn)
		done <- result{value, err}
	})
	select {
	case r := <-done:
		return r.value, told(path, r.err)
	case <-ctx.Done():
		return none, fmt.Errorf("ZooKeeper %s: %w", path, ctx.Err())
	}
}

// told puts the client's errors in our words.
func told(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, zk.ErrNoNode):
		err = ErrNoNode
	case errors.Is(err, zk.ErrNodeExists):
		err = ErrExists
	case errors.Is(err, zk.ErrBadVersion):
		err = ErrChanged
	}
	return fmt.Errorf("ZooKeeper %s: %w", path, err)
}
