//go:build !unix

package upgrade

import (
	"errors"
	"os"
	"time"
)

// MaxFDs is how many descriptors may go with a message.
const MaxFDs = 253

// Conn is not possible here.
type Conn struct{}

func pair() (*Conn, *os.File, error) { return nil, nil, errors.ErrUnsupported }

func newConn(int) (*Conn, error) { return nil, errors.ErrUnsupported }

func dup(*os.File) int { return -1 }

// Close does nothing.
func (*Conn) Close() error { return nil }

// SetDeadline is not possible here.
func (*Conn) SetDeadline(time.Time) error { return errors.ErrUnsupported }

// Send is not possible here.
func (*Conn) Send(byte, []byte, ...int) error { return errors.ErrUnsupported }

// Message is what Receive would return.
type Message struct {
	Kind byte
	Body []byte
	FDs  []int
}

// Close does nothing.
func (*Message) Close() {}

// Receive is not possible here.
func (*Conn) Receive() (Message, error) { return Message{}, errors.ErrUnsupported }
