package switcher

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"btcpool/internal/poll"
	"btcpool/internal/proxyheader"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/stratum"
)

// maxDials is how many servers are being reached at a time; further ones wait.
const maxDials = 1024

// dial reaches a server for a miner at from, whose header it sends if that is configured.
func (s *Service) dial(ctx context.Context, to *server, from netip.AddrPort) (net.Conn, error) {
	select {
	case s.dials <- struct{}{}:
		defer func() { <-s.dials }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DialTimeout.Std())
	defer cancel()
	var direct net.Dialer
	conn, err := direct.DialContext(ctx, "tcp", to.Addr)
	if err != nil {
		return nil, err
	}
	if to.ProxyProtocol != 0 {
		at, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
		if _, err := conn.Write(proxyheader.Append(nil, to.ProxyProtocol, from, at)); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	if !to.TLS {
		return conn, nil
	}
	host, _, _ := net.SplitHostPort(to.Addr)
	secure := tls.Client(conn, &tls.Config{
		ServerName:         host,
		InsecureSkipVerify: to.TLSSkipVerify, //nolint:gosec // the operator says so
		MinVersion:         tls.VersionTLS12,
	})
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secure, nil
}

// link reaches a server and makes a link of the connection.
func (s *Service) link(ctx context.Context, to *server, from netip.AddrPort) (poll.Link, error) {
	conn, err := s.dial(ctx, to, from)
	if err != nil {
		return nil, err
	}
	return poll.Adopt(conn, s.goroutines.Go, s.cfg.WriteTimeout.Std())
}

// watch looks at a server from time to time until ctx ends.
func (s *Service) watch(ctx context.Context, c *chain, to *server) {
	for {
		s.told(c, to, s.probe(ctx, to))
		if !retry.Sleep(ctx, s.cfg.ProbeInterval.Std()) {
			return
		}
	}
}

// told takes in how a server is.
func (s *Service) told(c *chain, to *server, err error) {
	switch {
	case err == nil && to.fault() != nil:
		to.works()
		s.log.Info().Str("chain", c.Name).Str("server", to.Addr).Msg("a server can be used")
	case err == nil:
		to.works()
	case errors.Is(err, context.Canceled):
	case to.failed(err, time.Now()):
		s.log.Warn().Err(err).Str("chain", c.Name).Str("server", to.Addr).Msg("a server cannot be used")
	}
}

// probe asks a server for an answer.
func (s *Service) probe(ctx context.Context, to *server) error {
	conn, err := s.dial(ctx, to, netip.AddrPort{})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := conn.SetDeadline(time.Now().Add(s.cfg.UpstreamTimeout.Std())); err != nil {
		return err
	}
	if _, err := conn.Write(stratum.AppendSubscribe(nil, 1, "switcher/"+service.Version(), "")); err != nil {
		return err
	}
	line, err := bufio.NewReaderSize(conn, maxServerLine).ReadSlice('\n')
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	if _, err := stratum.ParseMessage(line[:len(line)-1]); err != nil {
		return fmt.Errorf("the answer is no Stratum: %w", err)
	}
	return nil
}
