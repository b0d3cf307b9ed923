package archive_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"btcpool/internal/archive"
)

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func put(t *testing.T, c archive.Config, key, path string) error {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	store, err := archive.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return store.Put(t.Context(), key, path)
}

func TestFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, content := range []string{"first", "first", "second, longer"} {
		if err := put(t, archive.Config{Folder: dir}, "BTC/2024/day", write(t, content)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "BTC", "2024", "day"))
		if err != nil || string(got) != content {
			t.Errorf("got %q, %v, want %q", got, err, content)
		}
	}
	if left, err := os.ReadDir(filepath.Join(dir, "BTC", "2024")); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// server speaks S3. It refuses as many requests as fail says, and stores something else of the same size while spoil is set.
type server struct {
	archive.Config
	backend gofakes3.Backend
	puts    atomic.Int64
	fail    atomic.Int64
	spoil   atomic.Bool
	// metadata is that of a spoilt object.
	metadata map[string]string
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{backend: s3mem.New()}
	if err := s.backend.CreateBucket("shares"); err != nil {
		t.Fatal(err)
	}
	s3 := gofakes3.New(s.backend).Server()
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.fail.Add(-1) >= 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if r.Method == http.MethodPut {
			s.puts.Add(1)
		}
		s3.ServeHTTP(w, r)
		if r.Method == http.MethodPut && s.spoil.Load() {
			if _, err := s.backend.PutObject("shares", "pool/BTC/2024/day", s.metadata, strings.NewReader("spoilt"), int64(len("spoilt")), nil); err != nil {
				t.Error(err)
			}
		}
	}))
	t.Cleanup(ts.Close)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("very secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Config = archive.Config{
		Endpoint: strings.TrimPrefix(ts.URL, "http://"), Insecure: true, Bucket: "shares", Prefix: "pool", Region: "us-east-1",
		AccessKey: "key", SecretKeyFile: secret,
	}
	return s
}

func (s *server) object(t *testing.T) []byte {
	t.Helper()
	object, err := s.backend.GetObject("shares", "pool/BTC/2024/day", nil)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(object.Contents)
	if err = errors.Join(err, object.Contents.Close()); err != nil {
		t.Fatal(err)
	}
	return content
}

func TestBucket(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, content := range []string{"first", "first", "second"} {
		s.fail.Store(2) // and is asked again
		if err := put(t, s.Config, "BTC/2024/day", write(t, content)); err != nil {
			t.Fatal(err)
		}
		if got := s.object(t); !bytes.Equal(got, []byte(content)) {
			t.Errorf("got %q, want %q", got, content)
		}
	}
	if n := s.puts.Load(); n != 2 {
		t.Errorf("%d uploads of 2 contents", n)
	}
}

// TestBucketSpoils wants an object that is not what was sent to be noticed, and not to be taken for it later, nor after a
// restart.
func TestBucketSpoils(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.spoil.Store(true)
	path := write(t, "a days")
	sum := sha256.Sum256([]byte("a days"))
	s.metadata = map[string]string{"X-Amz-Meta-Sha256": hex.EncodeToString(sum[:])}
	store, err := archive.New(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Put(t.Context(), "BTC/2024/day", path); !errors.Is(err, archive.ErrDiffers) {
		t.Errorf("got %v, want ErrDiffers", err)
	}
	if got := s.object(t); string(got) != "spoilt" {
		t.Errorf("the server has %q: nothing is ours to remove", got)
	}
	if err := put(t, s.Config, "BTC/2024/day", path); !errors.Is(err, archive.ErrDiffers) {
		t.Errorf("after a restart: got %v, want ErrDiffers", err)
	}
	s.spoil.Store(false)
	if err := put(t, s.Config, "BTC/2024/day", path); err != nil || string(s.object(t)) != "a days" {
		t.Errorf("after a restart: %v", err)
	}
	if err := store.Put(t.Context(), "BTC/2024/day", path); err != nil || string(s.object(t)) != "a days" {
		t.Errorf("then: %v", err)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]archive.Config{
		"only one":   {Folder: "a", Endpoint: "b", Bucket: "c", AccessKey: "d", SecretKey: "e"},
		"bucket":     {Endpoint: "b", AccessKey: "d", SecretKey: "e"},
		"secret_key": {Endpoint: "b", Bucket: "c", AccessKey: "d"},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	c := archive.Config{Endpoint: "b", Bucket: "c", AccessKey: "d", SecretKeyFile: "/nowhere"}
	if _, err := archive.New(c); err == nil {
		t.Error("a secret whose file is not there is taken")
	}
}
