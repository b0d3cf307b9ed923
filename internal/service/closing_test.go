package service_test

import (
	"errors"
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
	for _, name := range []string{"lock", "spool", "port"} {
		c.Add(func() error {
			closed = append(closed, name)
			if name == "spool" {
				return errDisk
			}
			return nil
		})
	}
	if err := c.Close(); !errors.Is(err, errDisk) {
		t.Errorf("got %v, want the spool's error", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if want := []string{"port", "spool", "lock"}; !slices.Equal(closed, want) {
		t.Errorf("closed %v, want %v", closed, want)
	}
}
