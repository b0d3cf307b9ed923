package sserver

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// proxied is what a session speaks until the proxy has said whom it is for.
type proxied struct{ stratumV1 }

func (c proxied) handle(dst, in []byte) (out []byte, n int, err error) {
	from, n, err := parseProxyHeader(in)
	if n == 0 || err != nil {
		return dst, 0, err
	}
	if from.IsValid() {
		c.IP = from
	}
	if refusal := c.srv.admit(c.session, c.loop.now); refusal != "" {
		c.srv.metrics.refused.WithLabelValues(refusal).Inc()
		return dst, 0, errNotAdmitted
	}
	return dst, n, nil
}

const (
	// The shortest headers have as many bytes or more.
	proxyPeek     = len("PROXY UNKNOWN\r\n")
	maxProxyLine  = 107
	maxProxyBytes = 4096 // of a binary header
)

var proxySignature = []byte("\r\n\r\n\x00\r\nQUIT\n")

// parseProxyHeader returns the length of the header of version 1 or 2 of the PROXY protocol that b begins with, 0 when
// more of it must come, and the address of the one who connected, which is not valid when the proxy speaks for itself.
func parseProxyHeader(b []byte) (from netip.Addr, n int, err error) {
	switch {
	case len(b) < proxyPeek:
		return netip.Addr{}, 0, nil
	case bytes.HasPrefix(b, proxySignature):
		return parseProxyBinary(b)
	case !bytes.HasPrefix(b, []byte("PROXY ")):
		return netip.Addr{}, 0, errProxyHeader
	}
	line, _, ended := bytes.Cut(b[:min(len(b), maxProxyLine)], []byte("\r\n"))
	if !ended {
		if len(b) >= maxProxyLine {
			err = errProxyHeader
		}
		return netip.Addr{}, 0, err
	}
	n = len(line) + len("\r\n")
	fields := strings.Split(string(line), " ")
	if fields[1] == "UNKNOWN" {
		return netip.Addr{}, n, nil
	}
	if len(fields) != 6 || fields[1] != "TCP4" && fields[1] != "TCP6" {
		return netip.Addr{}, 0, errProxyHeader
	}
	ip, err := netip.ParseAddr(fields[2])
	if err != nil || ip.Zone() != "" || ip.Is4() != (fields[1] == "TCP4") {
		return netip.Addr{}, 0, fmt.Errorf("%w: address %.50q", errProxyHeader, fields[2])
	}
	return ip.Unmap(), n, nil
}

func parseProxyBinary(b []byte) (from netip.Addr, n int, err error) {
	const head = 16
	if len(b) < head {
		return netip.Addr{}, 0, nil
	}
	command, family, size := b[12], b[13], int(binary.BigEndian.Uint16(b[14:]))
	if command>>4 != 2 || command&15 > 1 || size > maxProxyBytes {
		return netip.Addr{}, 0, errProxyHeader
	}
	if n = head + size; len(b) < n {
		return netip.Addr{}, 0, nil
	}
	body := b[head:n]
	switch {
	case command&15 == 0: // LOCAL
		return netip.Addr{}, n, nil
	case family == 0x11 && size >= 12: // TCP over IPv4
		return netip.AddrFrom4([4]byte(body)), n, nil
	case family == 0x21 && size >= 36: // TCP over IPv6
		return netip.AddrFrom16([16]byte(body)).Unmap(), n, nil
	case family == 0: // not told
		return netip.Addr{}, n, nil
	}
	return netip.Addr{}, 0, errProxyHeader
}
