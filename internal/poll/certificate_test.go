package poll

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/testkit"
)

// A new certificate is taken after a while, and kept when its file is damaged.
func TestCertificate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var log bytes.Buffer
		c := &certificate{certFile: filepath.Join(dir, "cert"), keyFile: filepath.Join(dir, "key"), log: zerolog.New(&log)}
		vouch := testkit.Certificate(t, c.certFile, c.keyFile)
		if err := c.load(time.Now()); err != nil {
			t.Fatal(err)
		}
		// renew gives the files a time like no other, however coarse the file system's clock is.
		written := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
		renew := func() {
			written = written.Add(time.Second)
			if err := os.Chtimes(c.certFile, written, written); err != nil {
				t.Fatal(err)
			}
		}
		want := func(authorities *x509.CertPool) {
			t.Helper()
			cert, err := c.get(nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: authorities}); err != nil {
				t.Error(err)
			}
		}
		want(vouch)
		renewed := testkit.Certificate(t, c.certFile, c.keyFile)
		renew()
		time.Sleep(certificateAge - time.Nanosecond)
		want(vouch)
		time.Sleep(time.Nanosecond)
		want(renewed)
		if err := os.WriteFile(c.certFile, []byte("nothing"), 0o600); err != nil {
			t.Fatal(err)
		}
		renew()
		time.Sleep(certificateAge)
		want(renewed)
		if !strings.Contains(log.String(), "certificate not read again") {
			t.Errorf("log %q", log.String())
		}
		last := testkit.Certificate(t, c.certFile, c.keyFile)
		renew()
		time.Sleep(certificateAge)
		want(last)
	})
}
