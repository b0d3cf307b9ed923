//go:build !linux || streams

package poll

import (
	"net"
	"time"
)

// Adopt returns a link of a connection that was dialled, which it takes over.
func Adopt(conn net.Conn, run func(func()), timeout time.Duration) (Link, error) {
	return NewStream(conn, run, timeout), nil
}
