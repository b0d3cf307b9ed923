// Package proxyheader is what a proxy puts before a connection that it passes on, to say whose it is: the header of the
// PROXY protocol, version 1 (text) and 2 (binary).
package proxyheader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Err means that a connection does not begin as it should.
var Err = errors.New("no PROXY header")

const (
	// The shortest headers have as many bytes or more.
	peek     = len("PROXY UNKNOWN\r\n")
	maxLine  = 107
	maxBytes = 4096 // of a binary header
)

var signature = []byte("\r\n\r\n\x00\r\nQUIT\n")

// Parse returns the length of the header of version 1 or 2 of the PROXY protocol that b begins with, 0 when
// more of it must come, and the address of the one who connected, which is not valid when the proxy speaks for itself.
func Parse(b []byte) (from netip.Addr, n int, err error) {
	switch {
	case len(b) < peek:
		return netip.Addr{}, 0, nil
	case bytes.HasPrefix(b, signature):
		return parseBinary(b)
	case !bytes.HasPrefix(b, []byte("PROXY ")):
		return netip.Addr{}, 0, Err
	}
	line, _, ended := bytes.Cut(b[:min(len(b), maxLine)], []byte("\r\n"))
	if !ended {
		if len(b) >= maxLine {
			err = Err
		}
		return netip.Addr{}, 0, err
	}
	n = len(line) + len("\r\n")
	fields := strings.Split(string(line), " ")
	if fields[1] == "UNKNOWN" {
		return netip.Addr{}, n, nil
	}
	if len(fields) != 6 || fields[1] != "TCP4" && fields[1] != "TCP6" {
		return netip.Addr{}, 0, Err
	}
	ip, err := netip.ParseAddr(fields[2])
	if err != nil || ip.Zone() != "" || ip.Is4() != (fields[1] == "TCP4") {
		return netip.Addr{}, 0, fmt.Errorf("%w: address %.50q", Err, fields[2])
	}
	return ip.Unmap(), n, nil
}

func parseBinary(b []byte) (from netip.Addr, n int, err error) {
	const head = 16
	if len(b) < head {
		return netip.Addr{}, 0, nil
	}
	command, family, size := b[12], b[13], int(binary.BigEndian.Uint16(b[14:]))
	if command>>4 != 2 || command&15 > 1 || size > maxBytes {
		return netip.Addr{}, 0, Err
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
	return netip.Addr{}, 0, Err
}

// Append appends the header of that version, 1 or 2, of a connection from a miner to a server. Where the two are not of
// one family, or one is not known, the header says nothing.
func Append(dst []byte, version int, from, to netip.AddrPort) []byte {
	src, at := netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	told := src.Addr().IsValid() && at.Addr().IsValid()
	if told && src.Addr().Is4() != at.Addr().Is4() { // as an address of version 6, both can be said
		src, at = netip.AddrPortFrom(netip.AddrFrom16(src.Addr().As16()), src.Port()), netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), at.Port())
	}
	if version == 1 {
		return appendLine(dst, told, src, at)
	}
	dst = append(dst, signature...)
	switch {
	case !told:
		return append(dst, 0x21, 0, 0, 0)
	case src.Addr().Is4():
		dst = append(dst, 0x21, 0x11, 0, 12)
	default:
		dst = append(dst, 0x21, 0x21, 0, 36)
	}
	dst = append(dst, src.Addr().AsSlice()...)
	dst = append(dst, at.Addr().AsSlice()...)
	dst = binary.BigEndian.AppendUint16(dst, src.Port())
	return binary.BigEndian.AppendUint16(dst, at.Port())
}

func appendLine(dst []byte, told bool, from, to netip.AddrPort) []byte {
	family := "TCP6"
	switch {
	case !told:
		return append(dst, "PROXY UNKNOWN\r\n"...)
	case from.Addr().Is4():
		family = "TCP4"
	}
	return fmt.Appendf(dst, "PROXY %s %s %s %d %d\r\n", family, from.Addr(), to.Addr(), from.Port(), to.Port())
}
