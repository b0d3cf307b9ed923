package embedded_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"testing/iotest"

	"github.com/twmb/franz-go/pkg/kmsg"

	"btcpool/internal/bus/embedded"
)

// bytesConn is a connection that what is sent comes from in pieces.
type bytesConn struct {
	net.Conn
	io.Reader
}

func (c bytesConn) Read(p []byte) (int, error) { return c.Reader.Read(p) }

// FuzzGuard: whole requests pass as they are, in pieces of any size, up to the first that the broker could not stand.
func FuzzGuard(f *testing.F) {
	request := []byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff}
	f.Add(request)
	f.Add(append(bytes.Repeat(request, 2), request[:5]...))
	f.Add(append(bytes.Clone(request), "GET / HTTP/1.1\r\n"...))
	f.Add([]byte{0, 0, 0, 2, 0x7f, 0xff, 0, 0, 0, 1, 0, 3, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		want := 0
		for rest := in; len(rest) >= 6; rest = in[want:] {
			length, kind := binary.BigEndian.Uint32(rest), int16(binary.BigEndian.Uint16(rest[4:]))
			if length < 2 || length > 100<<20 || kmsg.RequestForKey(kind) == nil {
				break
			}
			want += min(4+int(length), len(rest))
		}
		for name, pieces := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "halves": iotest.HalfReader, "bytes": iotest.OneByteReader,
		} {
			got, _ := io.ReadAll(embedded.Guard(bytesConn{Reader: pieces(bytes.NewReader(in))}))
			if !bytes.Equal(got, in[:want]) {
				t.Fatalf("%s: %x passes of %x, want %d bytes", name, got, in, want)
			}
		}
	})
}
