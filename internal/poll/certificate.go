package poll

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

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

// ServerTLS returns the configuration of a TLS server whose certificate is read again when its files change. New files
// that cannot be used are logged, and leave the certificate as it is.
func ServerTLS(certFile, keyFile string, log zerolog.Logger) (*tls.Config, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.load(time.Now()); err != nil {
		return nil, err
	}
	return &tls.Config{GetCertificate: c.get, MinVersion: tls.VersionTLS12}, nil
}

// get is tls.Config.GetCertificate.
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

// load reads the files if they have changed. The caller holds c.mu, but for the first time.
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
