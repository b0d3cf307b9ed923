package proxyheader

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

const binaryHead = "\r\n\r\n\x00\r\nQUIT\n"

var proxyHeaders = []struct {
	name, in string
	want     string // "": none
	bad      bool
}{
	{"IPv4", "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", "192.0.2.7", false},
	{"IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n", "2001:db8::7", false},
	{"shortest", "PROXY UNKNOWN\r\n", "", false},
	{"unknown with addresses", "PROXY UNKNOWN ffff::1 ffff::1 1 1\r\n", "", false},
	{"another family", "PROXY TCP4 2001:db8::7 2001:db8::1 56324 443\r\n", "", true},
	{"no address", "PROXY TCP4 example 198.51.100.1 56324 443\r\n", "", true},
	{"with a zone", "PROXY TCP6 fe80::1%eth0 fe80::2 56324 443\r\n", "", true},
	{"too few", "PROXY TCP4 192.0.2.7 198.51.100.1\r\n", "", true},
	{"too long", "PROXY UNKNOWN " + strings.Repeat("x", 100) + "\r\n", "", true},
	{"none", `{"id":1,"method":"mining.subscribe"}` + "\n", "", true},
	{"binary IPv4", binaryHead + "\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb", "192.0.2.7", false},
	{"binary IPv6", binaryHead + "\x21\x21\x00\x24\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" + strings.Repeat("x", 20), "2001:db8::7", false},
	{"binary, with more", binaryHead + "\x21\x11\x00\x10\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb\x04\x00\x01\x00", "192.0.2.7", false},
	{"binary, local", binaryHead + "\x20\x00\x00\x00", "", false},
	{"binary, unspecified", binaryHead + "\x21\x00\x00\x00", "", false},
	{"binary, datagrams", binaryHead + "\x21\x12\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb", "", true},
	{"binary, short", binaryHead + "\x21\x11\x00\x04\xc0\x00\x02\x07", "", true},
	{"binary, version 3", binaryHead + "\x31\x11\x00\x00", "", true},
	{"binary, endless", binaryHead + "\x21\x11\xff\xff", "", true},
}

func TestProxyHeader(t *testing.T) {
	t.Parallel()
	for _, test := range proxyHeaders {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			const rest = "behind"
			got, n, err := Parse([]byte(test.in + rest))
			if (err != nil) != test.bad || err != nil && !errors.Is(err, Err) {
				t.Fatalf("error %v", err)
			}
			if test.bad {
				return
			}
			if got.IsValid() != (test.want != "") || got.IsValid() && got != netip.MustParseAddr(test.want) {
				t.Errorf("address %s", got)
			}
			if n != len(test.in) {
				t.Errorf("%d bytes, want %d", n, len(test.in))
			}
		})
	}
}

// A header is the same whatever comes behind it, and a part of one is none.
func FuzzProxyHeader(f *testing.F) {
	for _, test := range proxyHeaders {
		f.Add([]byte(test.in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		ip, n, err := Parse(in)
		if n == 0 || err != nil {
			if ip.IsValid() || n != 0 {
				t.Fatalf("%q: %s, %d bytes", in, ip, n)
			}
			return
		}
		again, m, err := Parse(in[:n])
		if err != nil || again != ip || m != n {
			t.Fatalf("%q: %s, then %s, %v", in[:n], ip, again, err)
		}
		if _, m, _ := Parse(in[:n-1]); m != 0 {
			t.Fatalf("%q does not need its end", in[:n])
		}
	})
}

func TestAppend(t *testing.T) {
	t.Parallel()
	v4, other := netip.MustParseAddrPort("192.0.2.7:56324"), netip.MustParseAddrPort("198.51.100.1:443")
	v6 := netip.MustParseAddrPort("[2001:db8::7]:56324")
	for _, test := range []struct {
		name     string
		from, to netip.AddrPort
		want     string
	}{
		{"IPv4", v4, other, "192.0.2.7"},
		{"IPv4 in IPv6", netip.MustParseAddrPort("[::ffff:192.0.2.7]:1"), other, "192.0.2.7"},
		{"IPv6", v6, netip.MustParseAddrPort("[2001:db8::1]:443"), "2001:db8::7"},
		{"IPv6 to IPv4", v6, other, "2001:db8::7"},
		{"IPv4 to IPv6", v4, v6, "192.0.2.7"},
		{"unknown", netip.AddrPort{}, other, ""},
	} {
		for version := 1; version <= 2; version++ {
			b := Append(nil, version, test.from, test.to)
			got, n, err := Parse(append(b, "behind"...))
			if err != nil || n != len(b) || got.IsValid() != (test.want != "") || got.IsValid() && got.String() != test.want {
				t.Errorf("%s, version %d: %q is read as %s, %d bytes, %v", test.name, version, b, got, n, err)
			}
		}
	}
}
