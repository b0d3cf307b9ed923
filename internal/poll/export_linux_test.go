//go:build !streams

package poll

// Epoll is the descriptor of what watches the loop's sockets.
func (l *Loop) Epoll() int { return l.poller.fd }
