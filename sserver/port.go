package sserver

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/users"
	"btcpool/internal/vardiff"
)

// Listener is a place where miners connect, with settings of its own. What is
// 0 is as at the top of the file.
type Listener struct {
	Listen            string         `toml:"listen"`        // host:port; port 0: any free one
	TLSCertFile       string         `toml:"tls_cert_file"` // with the key: TLS only; read again when it changes
	TLSKeyFile        string         `toml:"tls_key_file"`
	ProxyNetworks     []netip.Prefix `toml:"proxy_networks"` // whose connections begin with a PROXY header, version 1 or 2
	DefaultDifficulty float64        `toml:"default_difficulty"`
	MinDifficulty     float64        `toml:"min_difficulty"`
	MaxDifficulty     float64        `toml:"max_difficulty"`
	NonceBytes        int            `toml:"extranonce2_size"` // 4 to 8 bytes; agents always have 8
	Users             *users.Source  `toml:"users"`            // nil: as at the top of the file
}

// places returns all listeners, without zeros for what the top of the file says.
func (c Config) places() []Listener {
	var list []Listener
	if c.Listen != "" {
		list = append(list, Listener{Listen: c.Listen})
	}
	list = append(list, c.Listeners...)
	for i := range list {
		if list[i].NonceBytes == 0 {
			list[i].NonceBytes = c.NonceBytes
		}
		if list[i].Users == nil {
			list[i].Users = &c.Users.Source
		}
		for _, d := range []struct {
			own     *float64
			general float64
		}{
			{&list[i].DefaultDifficulty, c.DefaultDifficulty},
			{&list[i].MinDifficulty, c.MinDifficulty},
			{&list[i].MaxDifficulty, c.MaxDifficulty},
		} {
			if *d.own == 0 {
				*d.own = d.general
			}
		}
	}
	return list
}

func validateListen(key, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%s = %q: must be host:port", key, addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%s = %q: port must be 0 to 65535", key, addr)
	}
	return nil
}

// validate reports all faults of a listener that places returned.
func (l Listener) validate(prefix string) error {
	errs := []error{validateListen(prefix+"listen", l.Listen)}
	if (l.TLSCertFile == "") != (l.TLSKeyFile == "") {
		errs = append(errs, fmt.Errorf("%stls_cert_file, %stls_key_file: both or none must be set", prefix, prefix))
	}
	if l.NonceBytes < 4 || l.NonceBytes > job.Extranonce2Size {
		errs = append(errs, fmt.Errorf("%sextranonce2_size = %d: must be 4 to %d", prefix, l.NonceBytes, job.Extranonce2Size))
	}
	highest := bitcoin.MaxDifficulty.Float()
	for _, d := range []struct {
		key   string
		value float64
	}{
		{"default_difficulty", l.DefaultDifficulty},
		{"min_difficulty", l.MinDifficulty},
		{"max_difficulty", l.MaxDifficulty},
	} {
		if !(d.value > 0 && d.value <= highest) {
			errs = append(errs, fmt.Errorf("%s%s = %v: must be above 0 and at most 2^%d", prefix, d.key, d.value, bitcoin.MaxDifficulty))
		}
	}
	if l.MinDifficulty > l.DefaultDifficulty || l.DefaultDifficulty > l.MaxDifficulty {
		errs = append(errs, fmt.Errorf("%sdefault_difficulty = %v: must be from min_difficulty = %v to max_difficulty = %v",
			prefix, l.DefaultDifficulty, l.MinDifficulty, l.MaxDifficulty))
	}
	return errors.Join(errs...)
}

// port is a Listener that listens.
type port struct {
	net.Listener
	addr       net.Addr       // of the first Listener, and those after it
	tls        *tls.Config    // nil: none
	cert       *certificate   // of tls
	proxies    []netip.Prefix // who is to send a PROXY header
	users      *users.List
	vardiff    vardiff.Policy
	difficulty bitcoin.Difficulty // of miners that wish for none
	nonceBytes uint8

	sockets           *socketListener // nil: all links are streams
	closed            bool
	bytesIn, bytesOut prometheus.Counter
}

func listen(l Listener, cfg Config, log zerolog.Logger, m *metrics) (*port, error) {
	var levels []vardiff.Level
	if cfg.HashrateLevels {
		levels = vardiff.UsualLevels()
	}
	p := &port{
		proxies: l.ProxyNetworks,
		vardiff: vardiff.Policy{
			Interval: cfg.ShareInterval.Std(),
			Window:   cfg.DiffAdjustPeriod.Std(),
			Min:      bitcoin.DifficultyAtLeast(l.MinDifficulty),
			Max:      bitcoin.DifficultyAtLeast(l.MaxDifficulty),
			Levels:   levels,
		},
		difficulty: bitcoin.DifficultyAtLeast(l.DefaultDifficulty),
		nonceBytes: uint8(l.NonceBytes),
		bytesIn:    m.bytesIn.WithLabelValues(l.Listen),
		bytesOut:   m.bytesOut.WithLabelValues(l.Listen),
	}
	if l.TLSCertFile != "" {
		p.cert = &certificate{certFile: l.TLSCertFile, keyFile: l.TLSKeyFile, log: log}
		if err := p.cert.load(time.Now()); err != nil {
			return nil, err
		}
		p.tls = &tls.Config{GetCertificate: p.cert.get, MinVersion: tls.VersionTLS12}
	}
	if err := p.open(l.Listen); err != nil {
		return nil, err
	}
	p.addr = p.Listener.Addr()
	return p, nil
}

func (p *port) open(addr string) (err error) {
	if p.Listener, err = net.Listen("tcp", addr); err != nil {
		return err
	}
	if p.tls == nil {
		if p.sockets, err = newSocketListener(p.Listener); err != nil {
			p.Listener.Close()
			return err
		}
	}
	p.closed = false
	return nil
}

// reopen has a port that was closed listen again.
func (p *port) reopen() error {
	if !p.closed {
		return nil
	}
	return p.open(p.addr.String())
}

// Addr stays the same when the port is opened again.
func (p *port) Addr() net.Addr { return p.addr }

// Close ends accept, with net.ErrClosed.
func (p *port) Close() error {
	p.closed = true
	if p.sockets != nil {
		p.sockets.close()
	}
	return p.Listener.Close()
}

// accept returns the next connection and who made it.
func (p *port) accept(srv *Service) (link, netip.Addr, error) {
	if p.sockets != nil {
		return p.sockets.accept()
	}
	conn, err := p.Accept()
	if err != nil {
		return nil, netip.Addr{}, err
	}
	var ip netip.Addr
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		ip = tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	if p.tls != nil {
		conn = tls.Server(conn, p.tls) // shakes hands with the first read
	}
	return newStream(conn, srv), ip, nil
}

func contains(list []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// certificateAge is how long a changed certificate may stay unnoticed.
const certificateAge = 10 * time.Second

// certificate is that of a listener, read again when its files change.
type certificate struct {
	certFile, keyFile string
	log               zerolog.Logger

	mu      sync.Mutex
	now     *tls.Certificate
	checked time.Time // when the files were looked at last
	written time.Time // when the latest of them was written
}

// get is tls.Config.GetCertificate. New files that cannot be used leave the
// certificate as it is.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= certificateAge {
		if err := c.load(now); err != nil {
			c.log.Error().Err(err).Msg("certificate not read again")
		}
	}
	return c.now, nil
}

// load reads the files if they have changed. The caller holds c.mu, but for the
// first time.
func (c *certificate) load(now time.Time) error {
	c.checked = now
	var written time.Time
	for _, file := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		if t := info.ModTime(); t.After(written) {
			written = t
		}
	}
	if written.Equal(c.written) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("%s, %s: %w", c.certFile, c.keyFile, err)
	}
	c.now, c.written = &pair, written
	return nil
}
