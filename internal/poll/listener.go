package poll

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/rs/zerolog"
)

// Config says where to listen, and how.
type Config struct {
	Addr string // host:port; port 0: any free one
	// Inherited is a socket that listens already, of another process; nil: there is none. It is the Listener's.
	Inherited *os.File

	// With both there is TLS only. The files are read again when they change; what cannot be used then is logged, and
	// the certificate stays as it is.
	CertFile, KeyFile string
	Log               zerolog.Logger

	// Of links that are streams: see NewStream.
	Go           func(func())
	WriteTimeout time.Duration
}

// Listener makes links of the connections to an address. Accept may be called by one goroutine; Close, by another, ends
// it.
type Listener struct {
	cfg     Config
	addr    net.Addr
	tls     *tls.Config // nil: none
	tcp     net.Listener
	sockets *socketListener // nil: all links are streams
	closed  bool
}

// Listen returns a Listener that listens.
func Listen(cfg Config) (*Listener, error) {
	l := &Listener{cfg: cfg}
	if cfg.CertFile != "" {
		var err error
		if l.tls, err = ServerTLS(cfg.CertFile, cfg.KeyFile, cfg.Log); err != nil {
			return nil, err
		}
	}
	if err := l.open(cfg.Addr, cfg.Inherited); err != nil {
		return nil, err
	}
	l.addr = l.tcp.Addr()
	return l, nil
}

func (l *Listener) open(addr string, inherited *os.File) (err error) {
	if inherited == nil {
		l.tcp, err = net.Listen("tcp", addr)
	} else {
		l.tcp, err = net.FileListener(inherited)
		inherited.Close()
	}
	if err != nil {
		return err
	}
	if l.tls == nil {
		if l.sockets, err = newSocketListener(l.tcp); err != nil {
			l.tcp.Close()
			return err
		}
	}
	l.closed = false
	return nil
}

// Addr returns where the Listener listens, or did: it stays the same when it is opened again.
func (l *Listener) Addr() net.Addr { return l.addr }

// ErrPaused is what Accept returns until Resume is called.
var ErrPaused = errors.New("no connections are accepted now")

// Pause ends an Accept under way, and those to come: connections wait in the kernel.
func (l *Listener) Pause() error { return l.pause(time.Unix(1, 0)) }

// Resume ends Pause.
func (l *Listener) Resume() error { return l.pause(time.Time{}) }

func (l *Listener) pause(by time.Time) error {
	if l.sockets != nil {
		return l.sockets.pause(by)
	}
	return l.tcp.(*net.TCPListener).SetDeadline(by)
}

// File returns the socket that listens, for another process, as Config.Inherited.
func (l *Listener) File() (*os.File, error) { return l.tcp.(*net.TCPListener).File() }

// Accept returns the next connection and who made it, or ErrPaused, or net.ErrClosed.
func (l *Listener) Accept() (Link, netip.Addr, error) {
	if l.sockets != nil {
		return l.sockets.accept()
	}
	conn, err := l.tcp.Accept()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, netip.Addr{}, ErrPaused
	}
	if err != nil {
		return nil, netip.Addr{}, err
	}
	var ip netip.Addr
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		ip = tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	if l.tls != nil {
		conn = tls.Server(conn, l.tls) // shakes hands with the first read
	}
	return NewStream(conn, l.cfg.Go, l.cfg.WriteTimeout), ip, nil
}

// Close stops listening. It may be called again.
func (l *Listener) Close() error {
	if l.closed {
		return nil
	}
	l.closed = true
	if l.sockets != nil {
		l.sockets.close()
	}
	return l.tcp.Close()
}

// Reopen has a Listener that was closed listen again.
func (l *Listener) Reopen() error {
	if !l.closed {
		return nil
	}
	return l.open(l.addr.String(), nil)
}
