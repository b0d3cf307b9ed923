package sserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

// errProxyHeader means that a connection of a proxy does not begin as it
// should.
var errProxyHeader = errors.New("no PROXY header")

const (
	// The shortest headers have as many bytes or more.
	proxyPeek     = len("PROXY UNKNOWN\r\n")
	maxProxyLine  = 107
	maxProxyBytes = 4096 // of a binary header
)

var proxySignature = []byte("\r\n\r\n\x00\r\nQUIT\n")

// readProxyHeader reads the header of version 1 or 2 of the PROXY protocol that
// r begins with, and not a byte more. It returns the address of the one who
// connected, which is not valid when the proxy speaks for itself.
func readProxyHeader(r io.Reader) (netip.Addr, error) {
	head := make([]byte, proxyPeek, maxProxyLine)
	if _, err := io.ReadFull(r, head); err != nil {
		return netip.Addr{}, err
	}
	if bytes.HasPrefix(head, proxySignature) {
		return readProxyBinary(r, head)
	}
	if !bytes.HasPrefix(head, []byte("PROXY ")) {
		return netip.Addr{}, errProxyHeader
	}
	for !bytes.HasSuffix(head, []byte("\r\n")) {
		if len(head) == maxProxyLine {
			return netip.Addr{}, errProxyHeader
		}
		head = head[:len(head)+1]
		if _, err := io.ReadFull(r, head[len(head)-1:]); err != nil {
			return netip.Addr{}, err
		}
	}
	fields := strings.Split(strings.TrimSuffix(string(head), "\r\n"), " ")
	if fields[1] == "UNKNOWN" {
		return netip.Addr{}, nil
	}
	if len(fields) != 6 || fields[1] != "TCP4" && fields[1] != "TCP6" {
		return netip.Addr{}, errProxyHeader
	}
	ip, err := netip.ParseAddr(fields[2])
	if err != nil || ip.Zone() != "" || ip.Is4() != (fields[1] == "TCP4") {
		return netip.Addr{}, fmt.Errorf("%w: address %.50q", errProxyHeader, fields[2])
	}
	return ip.Unmap(), nil
}

func readProxyBinary(r io.Reader, head []byte) (netip.Addr, error) {
	head = head[:16]
	if _, err := io.ReadFull(r, head[proxyPeek:]); err != nil {
		return netip.Addr{}, err
	}
	command, family, size := head[12], head[13], int(binary.BigEndian.Uint16(head[14:]))
	if command>>4 != 2 || command&15 > 1 || size > maxProxyBytes {
		return netip.Addr{}, errProxyHeader
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return netip.Addr{}, err
	}
	switch {
	case command&15 == 0: // LOCAL
		return netip.Addr{}, nil
	case family == 0x11 && size >= 12: // TCP over IPv4
		return netip.AddrFrom4([4]byte(body)), nil
	case family == 0x21 && size >= 36: // TCP over IPv6
		return netip.AddrFrom16([16]byte(body)).Unmap(), nil
	case family == 0: // not told
		return netip.Addr{}, nil
	}
	return netip.Addr{}, errProxyHeader
}
