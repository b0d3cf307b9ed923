//go:build !linux || streams

package poll

// Epoll says that plain connections are sockets.
const Epoll = false
