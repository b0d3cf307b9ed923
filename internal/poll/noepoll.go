//go:build !linux || streams

package poll

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"btcpool/internal/retry"
)

// poller only wakes its loop: all links are streams here. The build tag streams has that on Linux too, for tests.
type poller struct{ bell retry.Bell }

func newPoller() (*poller, error) { return &poller{retry.NewBell()}, nil }

func (p *poller) wait(block bool) error {
	if block {
		<-p.bell
	}
	return nil
}

func (p *poller) more() bool { return false }

func (p *poller) serve() {}

func (p *poller) wake() { p.bell.Ring() }

func (p *poller) close() {}

// socketListener does not exist here.
type socketListener struct{}

func newSocketListener(net.Listener) (*socketListener, error) { return nil, nil }

func (*socketListener) accept() (Link, netip.Addr, error) {
	return nil, netip.Addr{}, errors.ErrUnsupported
}

func (*socketListener) pause(time.Time) error { return nil }

func (*socketListener) close() {}

// Passed is not possible here.
func Passed(int) (Link, error) { return nil, errors.ErrUnsupported }
