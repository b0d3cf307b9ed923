package miner_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"btcpool/internal/miner"
	"btcpool/internal/miner/pooltest"
)

// secure puts TLS before the address. It returns where, and who vouches for it.
func secure(t *testing.T, addr string) (string, *x509.CertPool) {
	t.Helper()
	server := httptest.NewTLSServer(nil) // for its certificate
	server.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: server.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	var forwarders sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		forwarders.Wait()
	})
	forwarders.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", addr)
			if err != nil {
				near.Close()
				t.Error(err)
				return
			}
			for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
				forwarders.Go(func() {
					_, _ = io.Copy(way[1], way[0]) // until one side ends
					near.Close()
					far.Close()
				})
			}
		}
	})
	authorities := x509.NewCertPool()
	authorities.AddCert(server.Certificate())
	return listener.Addr().String(), authorities
}

func TestTLS(t *testing.T) {
	t.Parallel()
	addr, authorities := secure(t, (&pooltest.Pool{}).Start(t).Addr())
	for name, test := range map[string]struct {
		config *tls.Config
		want   int64
	}{
		"known":   {&tls.Config{RootCAs: authorities}, 10},
		"unknown": {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := miner.New(miner.Config{URL: "stratum+ssl://" + addr, TLS: test.config, User: "user.worker", Shares: 10}, zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			err = m.Run(t.Context())
			if got := m.Report().Accepted; got < test.want || (err == nil) != (test.want > 0) {
				t.Errorf("%d shares accepted, error %v", got, err)
			}
		})
	}
}
