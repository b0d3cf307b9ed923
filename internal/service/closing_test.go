package service_test

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"

	"btcpool/internal/service"
)

func TestClosing(t *testing.T) {
	t.Parallel()
	var (
		c       service.Closing
		closed  []string
		errDisk = errors.New("disk")
	)
	for _, part := range []struct {
		name string
		err  error
	}{{"lock", nil}, {"spool", errDisk}, {"port", fmt.Errorf("close: %w", net.ErrClosed)}} {
		c.Add(func() error {
			closed = append(closed, part.name)
			return part.err
		})
	}
	if err := c.Close(); !errors.Is(err, errDisk) || errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want the spool's error alone", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if want := []string{"port", "spool", "lock"}; !slices.Equal(closed, want) {
		t.Errorf("closed %v, want %v", closed, want)
	}
}
