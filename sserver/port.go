package sserver

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/bitcoin"
	"btcpool/internal/config"
	"btcpool/internal/job"
	"btcpool/internal/poll"
	"btcpool/internal/users"
	"btcpool/internal/vardiff"
)

// Listener is a place where miners connect, with settings of its own. What is 0 is as at the top of the file.
type Listener struct {
	// Listen is host:port; port 0: any free one.
	Listen string `toml:"listen"`
	// TLSCertFile and TLSKeyFile make it TLS only; they are read again when they change.
	TLSCertFile string `toml:"tls_cert_file"`
	TLSKeyFile  string `toml:"tls_key_file"`
	// ProxyNetworks are those whose connections begin with a PROXY header, version 1 or 2.
	ProxyNetworks []netip.Prefix `toml:"proxy_networks"`

	DefaultDifficulty float64 `toml:"default_difficulty"`
	MinDifficulty     float64 `toml:"min_difficulty"`
	MaxDifficulty     float64 `toml:"max_difficulty"`
	// NonceBytes is the size of extranonce2, 4 to 8 bytes; agents always have 8.
	NonceBytes int `toml:"extranonce2_size"`
	// Users says who may mine here. nil: as at the top of the file.
	Users *users.Source `toml:"users"`
}

// places returns all listeners, without zeros for what the top of the file says.
func (c Config) places() []Listener {
	var list []Listener
	if c.Listen != "" {
		list = append(list, Listener{Listen: c.Listen})
	}
	list = append(list, c.Listeners...)
	for i := range list {
		l := &list[i]
		l.NonceBytes = cmp.Or(l.NonceBytes, c.NonceBytes)
		l.Users = cmp.Or(l.Users, &c.Users.Source)
		l.DefaultDifficulty = cmp.Or(l.DefaultDifficulty, c.startDifficulty())
		l.MinDifficulty = cmp.Or(l.MinDifficulty, c.MinDifficulty)
		l.MaxDifficulty = cmp.Or(l.MaxDifficulty, c.MaxDifficulty)
	}
	return list
}

// Difficulties of first shares, unless they are configured: for ASICs, and for processors where blocks come on demand.
const (
	asicDifficulty      = 16384
	processorDifficulty = 1.0 / 1024 // 2^22 hashes
)

// startDifficulty is that of miners who wish for none.
func (c Config) startDifficulty() float64 {
	if c.DefaultDifficulty != 0 {
		return c.DefaultDifficulty
	}
	start := float64(asicDifficulty)
	if network, err := bitcoin.NetworkByName(c.Users.Network); err == nil && network.OnDemand {
		start = processorDifficulty
	}
	return min(max(start, c.MinDifficulty), c.MaxDifficulty)
}

// validate reports all faults of a listener that places returned.
func (l Listener) validate() error {
	var faults config.Faults
	faults.Listen("listen", l.Listen)
	if (l.TLSCertFile == "") != (l.TLSKeyFile == "") {
		faults.Addf("tls_cert_file, tls_key_file: both or none must be set")
	}
	faults.Number("extranonce2_size", l.NonceBytes, 4, job.Extranonce2Size)
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
			faults.Addf("%s = %v: must be above 0 and at most 2^%d", d.key, d.value, bitcoin.MaxDifficulty)
		}
	}
	if l.MinDifficulty > l.DefaultDifficulty || l.DefaultDifficulty > l.MaxDifficulty {
		faults.Addf("default_difficulty = %v: must be from min_difficulty = %v to max_difficulty = %v",
			l.DefaultDifficulty, l.MinDifficulty, l.MaxDifficulty)
	}
	return faults.Err()
}

// port is a Listener that listens.
type port struct {
	*poll.Listener
	name       string         // for another process
	index      uint32         // among the server's
	proxies    []netip.Prefix // who is to send a PROXY header
	users      []*users.List  // by chain
	vardiff    vardiff.Policy
	difficulty bitcoin.Difficulty // the start of miners that wish for none
	nonceBytes uint8

	bytesIn, bytesOut prometheus.Counter
}

func (s *Service) listen(l Listener) (*port, error) {
	listener, err := poll.Listen(poll.Config{
		Addr:         l.Listen,
		Inherited:    s.before.Listener("listen " + l.Listen),
		CertFile:     l.TLSCertFile,
		KeyFile:      l.TLSKeyFile,
		Log:          s.log,
		Go:           s.goroutines.Go,
		WriteTimeout: s.cfg.WriteTimeout.Std(),
	})
	if err != nil {
		return nil, config.Listening("listen", l.Listen, err)
	}
	var levels []vardiff.Level
	if s.cfg.HashrateLevels {
		levels = vardiff.UsualLevels()
	}
	return &port{
		Listener: listener,
		name:     "listen " + l.Listen,
		index:    uint32(len(s.ports)),
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
