package sserver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/poll"
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
	*poll.Listener
	proxies    []netip.Prefix // who is to send a PROXY header
	users      *users.List
	vardiff    vardiff.Policy
	difficulty bitcoin.Difficulty // of miners that wish for none
	nonceBytes uint8

	bytesIn, bytesOut prometheus.Counter
}

func (s *Service) listen(l Listener) (*port, error) {
	listener, err := poll.Listen(poll.Config{
		Addr:         l.Listen,
		CertFile:     l.TLSCertFile,
		KeyFile:      l.TLSKeyFile,
		Log:          s.log,
		Go:           s.goroutines.Go,
		WriteTimeout: s.cfg.WriteTimeout.Std(),
	})
	if err != nil {
		return nil, err
	}
	var levels []vardiff.Level
	if s.cfg.HashrateLevels {
		levels = vardiff.UsualLevels()
	}
	return &port{
		Listener: listener,
		proxies:  l.ProxyNetworks,
		vardiff: vardiff.Policy{
			Interval: s.cfg.ShareInterval.Std(),
			Window:   s.cfg.DiffAdjustPeriod.Std(),
			Min:      bitcoin.DifficultyAtLeast(l.MinDifficulty),
			Max:      bitcoin.DifficultyAtLeast(l.MaxDifficulty),
			Levels:   levels,
		},
		difficulty: bitcoin.DifficultyAtLeast(l.DefaultDifficulty),
		nonceBytes: uint8(l.NonceBytes),
		bytesIn:    s.metrics.bytesIn.WithLabelValues(l.Listen),
		bytesOut:   s.metrics.bytesOut.WithLabelValues(l.Listen),
	}, nil
}

func contains(list []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(ip) })
}
