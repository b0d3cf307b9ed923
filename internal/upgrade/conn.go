//go:build unix

package upgrade

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxMessage bounds a message.
	maxMessage = 256 << 20
	// MaxFDs is how many descriptors may go with a message: the kernel's SCM_MAX_FD.
	MaxFDs = 253

	headerSize = 1 + 2 + 4
)

// Conn is the connection between the old process and the new one. Each direction belongs to one goroutine at a time.
type Conn struct{ unix *net.UnixConn }

// pair returns both ends of a connection.
func pair() (here *Conn, there *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1]) // os/exec makes the copy for the new process
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	there = os.NewFile(uintptr(fds[1]), "upgrade")
	if here, err = newConn(fds[0]); err != nil {
		there.Close()
		return nil, nil, err
	}
	return here, there, nil
}

func newConn(fd int) (*Conn, error) {
	file := os.NewFile(uintptr(fd), "upgrade")
	if file == nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, os.ErrInvalid)
	}
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("descriptor %d is not of an upgrade", fd)
	}
	return &Conn{c}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.unix.Close() }

// SetDeadline bounds Send and Receive.
func (c *Conn) SetDeadline(t time.Time) error { return c.unix.SetDeadline(t) }

// Send sends a message, and copies of descriptors with it, at most MaxFDs. They are the caller's still.
func (c *Conn) Send(kind byte, body []byte, fds ...int) error {
	var header [headerSize]byte
	header[0] = kind
	binary.LittleEndian.PutUint16(header[1:], uint16(len(fds)))
	binary.LittleEndian.PutUint32(header[3:], uint32(len(body)))
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	// So few bytes go as a whole, with what goes with them.
	if _, _, err := c.unix.WriteMsgUnix(header[:], rights, nil); err != nil {
		return err
	}
	if len(body) == 0 { // the other side may be done with the connection
		return nil
	}
	_, err := c.unix.Write(body)
	return err
}

// Message is what Receive returns. Its descriptors belong to who has it.
type Message struct {
	Kind byte
	Body []byte
	FDs  []int
}

// Close closes the descriptors that are left.
func (m *Message) Close() {
	for _, fd := range m.FDs {
		_ = unix.Close(fd)
	}
	m.FDs = nil
}

// Receive returns the next message. The error is io.EOF when the other process has closed the connection, or is gone.
func (c *Conn) Receive() (m Message, err error) {
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	var header [headerSize]byte
	rights := make([]byte, unix.CmsgSpace(MaxFDs*4))
	for read := 0; read < headerSize; {
		n, nRights, flags, _, err := c.unix.ReadMsgUnix(header[read:], rights) // close-on-exec
		if errors.Is(err, syscall.ECONNRESET) || err == nil && n == 0 {
			err = io.EOF
		}
		if err != nil {
			return m, err
		}
		read += n
		fds, err := parseRights(rights[:nRights])
		m.FDs = append(m.FDs, fds...)
		if err != nil {
			return m, err
		}
		if flags&unix.MSG_CTRUNC != 0 {
			return m, errors.New("descriptors are lost: too many files, raise LimitNOFILE, or ulimit -n")
		}
	}
	size := binary.LittleEndian.Uint32(header[3:])
	if want := int(binary.LittleEndian.Uint16(header[1:])); want != len(m.FDs) {
		return m, fmt.Errorf("%d descriptors for %d", len(m.FDs), want)
	}
	if size > maxMessage {
		return m, fmt.Errorf("%w: message of %d bytes", ErrMalformed, size)
	}
	m.Kind, m.Body = header[0], make([]byte, size)
	_, err = io.ReadFull(c.unix, m.Body)
	return m, err
}

func parseRights(b []byte) (fds []int, err error) {
	if len(b) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		more, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return fds, err
		}
		fds = append(fds, more...)
	}
	return fds, nil
}

func dup(f *os.File) int {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}
