package config

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// A ListenError means that an address cannot be listened at.
type ListenError struct {
	Key, Addr string // as configured
	Err       error
}

// Unwrap returns the system's error.
func (e *ListenError) Unwrap() error { return e.Err }

// Listening names the key of an error in opening what listens: a ListenError if err is the system's, or else err.
func Listening(key, addr string, err error) error {
	if system, ok := errors.AsType[*net.OpError](err); ok {
		return &ListenError{Key: key, Addr: addr, Err: system}
	}
	return err
}

func (e *ListenError) Error() string {
	why := e.Err.Error()
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		why = "another process listens there: stop it, or choose another address"
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		why = "is no address of this machine"
	case errors.Is(e.Err, syscall.EACCES):
		why = "may not be listened at: a port below 1024 needs a privilege"
	}
	return fmt.Sprintf("%s = %q: %s", e.Key, e.Addr, why)
}
