package embedded

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxRequest is the largest request in bytes, by Kafka's default for socket.request.max.bytes.
const maxRequest = 100 << 20

// guardedListener ends connections whose requests the broker could not stand: it would panic for an unknown kind and
// allocate whatever length is claimed.
type guardedListener struct{ net.Listener }

func (l guardedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &guardedConn{Conn: conn}, nil
}

// guardedConn looks at the head of each request: i32 length of what follows, i16 kind, big-endian.
type guardedConn struct {
	net.Conn
	buf  [6]byte
	head []byte // the part of buf that was checked and has not been read yet
	left int    // bytes behind the head that have not been read yet
}

func (c *guardedConn) Read(p []byte) (int, error) {
	if len(c.head) == 0 && c.left == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

func (c *guardedConn) next() error {
	if _, err := io.ReadFull(c.Conn, c.buf[:]); err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(c.buf[:])
	kind := int16(binary.BigEndian.Uint16(c.buf[4:]))
	if length < 2 || length > maxRequest || kmsg.RequestForKey(kind) == nil {
		return fmt.Errorf("no Kafka request: kind %d, %d bytes", kind, length)
	}
	c.head, c.left = c.buf[:], int(length)-2
	return nil
}
