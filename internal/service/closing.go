package service

import (
	"errors"
	"net"
	"slices"
	"sync"
)

// Closing is what a service has opened and has to close again, whether it has run or not. The zero value is ready.
//
// New registers each thing right after opening it, and calls Close when it fails; Run calls Close when it ends; whoever
// drops a service that has not run calls it too.
type Closing struct {
	mu    sync.Mutex
	steps []func() error
}

// Add has Close call f, before what was added earlier.
func (c *Closing) Add(f func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps = append(c.steps, f)
}

// Close closes everything, the last opened first, and returns all errors. What is closed stays so: another call does
// nothing. A listener that its server has closed is no error.
func (c *Closing) Close() error {
	c.mu.Lock()
	steps := c.steps
	c.steps = nil
	c.mu.Unlock()
	var errs []error
	for _, f := range slices.Backward(steps) {
		if err := f(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
