package bus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"
)

// unreachable means that no connection to a broker came about.
type unreachable struct {
	addr  string
	cause error
}

func (u *unreachable) Unwrap() error { return u.cause }

func (u *unreachable) Error() string {
	var name *net.DNSError
	switch {
	case errors.Is(u.cause, syscall.ECONNREFUSED):
		return fmt.Sprintf("nothing listens at %s: is Kafka running", u.addr)
	case errors.As(u.cause, &name) && name.IsNotFound:
		return fmt.Sprintf("the host of %s is not known: is Kafka running", u.addr)
	default:
		return fmt.Sprintf("Kafka at %s: %v: is it running", u.addr, u.cause)
	}
}

// dial connects to a broker.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, &unreachable{addr, err}
	}
	return &brokerConn{Conn: conn, addr: addr}, nil
}

// brokerConn finds out by its first byte what is no broker. The library would take any four bytes for the length of an
// answer, and what follows for arrays of as many elements as it says.
type brokerConn struct {
	net.Conn
	addr  string
	known bool
}

var errNotKafka = errors.New("its first answer is none of Kafka's")

// Read is called by one goroutine at a time.
func (c *brokerConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.known || n == 0 && err == nil {
		return n, err
	}
	if n > 0 && b[0] != 0 { // no answer to the first request has 16 MiB
		n, err = 0, errNotKafka
	}
	if n == 0 {
		return 0, &unreachable{c.addr, err}
	}
	c.known = true
	return n, err
}

// explained returns err as an operator can act on it: which address it is about, and which setting names that.
func (c *Client) explained(err error) error {
	var away *unreachable
	switch {
	case !errors.As(err, &away):
		return err
	case slices.Contains(c.cfg.Brokers, away.addr):
		return fmt.Errorf("%w, and is kafka.brokers right?", away)
	default:
		return fmt.Errorf("%w, and are the advertised.listeners right by which brokers tell their addresses?", away)
	}
}
