//go:build !streams

package poll

// Epoll says that plain connections are sockets.
const Epoll = true
