//go:build !linux

package poll

import (
	"errors"
	"net"
	"net/netip"
)

// poller only wakes its loop: all links are streams here.
type poller struct{ bell chan struct{} }

func newPoller() (*poller, error) { return &poller{make(chan struct{}, 1)}, nil }

func (p *poller) wait(block bool) error {
	if block {
		<-p.bell
	}
	return nil
}

func (p *poller) serve() {}

func (p *poller) wake() {
	select {
	case p.bell <- struct{}{}:
	default:
	}
}

func (p *poller) close() {}

// socketListener does not exist here.
type socketListener struct{}

func newSocketListener(net.Listener) (*socketListener, error) { return nil, nil }

func (*socketListener) accept() (Link, netip.Addr, error) {
	return nil, netip.Addr{}, errors.ErrUnsupported
}

func (*socketListener) close() {}
