package config_test

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"btcpool/internal/config"
)

func TestListenError(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := ln.Addr().String()
	for addr, want := range map[string]string{
		taken:         `listen = "` + taken + `": another process listens there: stop it, or choose another address`,
		"192.0.2.1:0": `listen = "192.0.2.1:0": is no address of this machine`,
	} {
		_, err := net.Listen("tcp", addr)
		if got := config.Listening("listen", addr, fmt.Errorf("open: %w", err)).Error(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if err := config.Listening("listen", taken, errors.New("no certificate")); err.Error() != "no certificate" {
		t.Error("an error that is not the system's was changed")
	}
}
