package handover_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/handover"
	"btcpool/internal/share"
	"btcpool/internal/telemetry"
	"btcpool/internal/testkit"
)

const token = "0123456789abcdef"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is a blkmaker that answers with what take returns.
func receiver(t *testing.T, take func([]byte) error) string {
	t.Helper()
	srv := httptest.NewServer(handover.Handler(token, func(_ context.Context, solved []byte) error { return take(solved) }))
	t.Cleanup(srv.Close)
	return srv.URL
}

// start runs a client; stop ends it and waits.
func start(t *testing.T, cfg handover.Config) (c *handover.Client, stop func()) {
	t.Helper()
	c, err := handover.New(cfg, telemetry.Deps{Log: zerolog.New(zerolog.NewTestWriter(t))})
	if err != nil {
		t.Fatal(err)
	}
	return c, testkit.Run(t, c.Run)
}

func receive(t *testing.T, from <-chan string) string {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(testkit.Patience):
		t.Fatal("nothing arrived")
		return ""
	}
}

// Every blkmaker gets the share; one that fails is tried again.
func TestSendToAll(t *testing.T) {
	t.Parallel()
	one, two := make(chan string, 10), make(chan string, 10)
	var tries atomic.Int32
	first := receiver(t, func(b []byte) error { one <- string(b); return nil })
	second := receiver(t, func(b []byte) error {
		if tries.Add(1) < 3 {
			return errors.New("disk full")
		}
		two <- string(b)
		return nil
	})
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	c, stop := start(t, handover.Config{URLs: []string{first + "/"}, Secret: handover.Secret{TokenFile: file}})
	buf := []byte("block")
	if !c.Send(buf) {
		t.Error("not queued")
	}
	copy(buf, "other")
	if got := receive(t, one); got != "block" {
		t.Errorf("%q arrived", got)
	}
	stop()

	c, stop = start(t, handover.Config{URLs: []string{second}, Secret: handover.Secret{Token: token}})
	c.Send([]byte("again"))
	if got := receive(t, two); got != "again" || tries.Load() != 3 {
		t.Errorf("%q arrived at try %d", got, tries.Load())
	}
	stop()
}

// A blkmaker that is away neither delays the others nor outlives the client.
func TestOneAway(t *testing.T) {
	t.Parallel()
	arrived := make(chan string, 1)
	here := receiver(t, func(b []byte) error { arrived <- string(b); return nil })
	c, stop := start(t, handover.Config{URLs: []string{"http://" + testkit.FreeAddr(t), here}, Secret: handover.Secret{Token: token}})
	c.Send([]byte("block"))
	receive(t, arrived)
	stop()
}

// What was sent just before the end still leaves.
func TestDrain(t *testing.T) {
	t.Parallel()
	arrived := make(chan string, 1)
	url := receiver(t, func(b []byte) error { arrived <- string(b); return nil })
	c, err := handover.New(handover.Config{URLs: []string{url}, Secret: handover.Secret{Token: token}}, telemetry.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	c.Send([]byte("last"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, arrived); got != "last" {
		t.Errorf("%q arrived", got)
	}
}

// With every blkmaker away new shares take the place of the oldest ones, and Send does not block.
func TestBounded(t *testing.T) {
	t.Parallel()
	newest := make(chan string, 1)
	var open atomic.Bool
	url := receiver(t, func(b []byte) error {
		switch {
		case !open.Load():
			return errors.New("not yet")
		case string(b) == "399":
			newest <- string(b)
		}
		return nil
	})
	c, stop := start(t, handover.Config{URLs: []string{url}, Secret: handover.Secret{Token: token}})
	for i := range 400 {
		testkit.Eventually(t, "Run has had its turn", func() bool { return c.Send(fmt.Append(nil, i)) })
	}
	open.Store(true)
	receive(t, newest)
	stop()
}

func TestWithoutURLs(t *testing.T) {
	t.Parallel()
	c, stop := start(t, handover.Config{})
	for range 1000 {
		if !c.Send([]byte("block")) {
			t.Fatal("refused")
		}
	}
	stop()
}

func TestHandler(t *testing.T) {
	t.Parallel()
	handler := handover.Handler(token, func(_ context.Context, b []byte) error {
		switch string(b) {
		case "garbage":
			return fmt.Errorf("%w: too short", share.ErrSolved)
		case "trouble":
			return errors.New("disk full")
		}
		return nil
	})
	for _, test := range []struct {
		name, method, path, auth, body string
		want                           int
	}{
		{"probe", "POST", "/solved", "Bearer " + token, "", 204},
		{"probe with another token", "POST", "/solved", "Bearer " + token + "0", "", 401},
		{"taken", "POST", "/solved", "Bearer " + token, "block", 204},
		{"no share", "POST", "/solved", "Bearer " + token, "garbage", 400},
		{"not now", "POST", "/solved", "Bearer " + token, "trouble", 503},
		{"too long", "POST", "/solved", "Bearer " + token, strings.Repeat("x", 1<<20+1), 413},
		{"no token", "POST", "/solved", "", "block", 401},
		{"empty token", "POST", "/solved", "Bearer ", "block", 401},
		{"other token", "POST", "/solved", "Bearer " + token + "0", "block", 401},
		{"bare token", "POST", "/solved", token, "block", 401},
		{"reading", "GET", "/solved", "Bearer " + token, "", 405},
		{"elsewhere", "POST", "/", "Bearer " + token, "block", 404},
	} {
		r := httptest.NewRequest(test.method, test.path, strings.NewReader(test.body))
		r.Header.Set("Authorization", test.auth)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != test.want {
			t.Errorf("%s: HTTP %d, want %d", test.name, w.Code, test.want)
		}
	}
}

// A wrong address or token is known before the first block.
func TestProbe(t *testing.T) {
	t.Parallel()
	none := func([]byte) error { t.Error("a probe is no share"); return nil }
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	older := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, share.ErrSolved.Error()+": 0 bytes", http.StatusBadRequest)
	}))
	t.Cleanup(older.Close)
	for _, test := range []struct {
		name, url, token string
		want             float64
		log              string
	}{
		{"right", receiver(t, none), token, 1, ""},
		{"an older blkmaker", older.URL, token, 1, ""},
		{"wrong token", receiver(t, none), token + "0", 0, "do not have the same token"},
		{"another service", other.URL, token, 0, "HTTP 404"},
		{"nobody", "http://127.0.0.1:1", token, 0, "connection refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			metrics, log := prometheus.NewRegistry(), make(chan string, 10)
			deps := telemetry.Deps{Log: zerolog.New(lines(log)), Metrics: metrics}
			c, err := handover.New(handover.Config{URLs: []string{test.url}, Secret: handover.Secret{Token: test.token}}, deps)
			if err != nil {
				t.Fatal(err)
			}
			testkit.Run(t, c.Run)
			testkit.Eventually(t, "probed", func() bool {
				n, err := testutil.GatherAndCount(metrics, "btcpool_handover_up")
				return err == nil && n == 1
			})
			if got := testkit.Metric(t, metrics, "btcpool_handover_up", "url", test.url+"/solved"); got != test.want {
				t.Errorf("up: %v", got)
			}
			if test.log != "" {
				if got := receive(t, log); !strings.Contains(got, test.log) {
					t.Errorf("log: %s", got)
				}
			}
		})
	}
}

// lines is a log that a test reads.
type lines chan<- string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// A share that blkmaker calls none is not offered again.
func TestRefused(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	url := receiver(t, func([]byte) error { tries.Add(1); return share.ErrSolved })
	c, stop := start(t, handover.Config{URLs: []string{url}, Secret: handover.Secret{Token: token}})
	c.Send([]byte("garbage"))
	testkit.Eventually(t, "it is offered", func() bool { return tries.Load() > 0 })
	stop()
	if n := tries.Load(); n != 1 {
		t.Errorf("offered %d times", n)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	secret := handover.Secret{Token: token}
	for _, test := range []struct {
		name string
		cfg  interface{ Validate() error }
		want string // in the error; "" = none
	}{
		{"off", handover.Config{}, ""},
		{"off with a secret", handover.Config{Secret: handover.Secret{Token: "x"}}, ""},
		{"two blkmakers", handover.Config{URLs: []string{"http://127.0.0.1:8300", "https://b:8300/"}, Secret: secret}, ""},
		{"no secret", handover.Config{URLs: []string{"http://a:1"}}, "handover.token_file: is empty"},
		{"two secrets", handover.Config{URLs: []string{"http://a:1"}, Secret: handover.Secret{Token: token, TokenFile: "f"}}, "only one"},
		{"short secret", handover.Config{URLs: []string{"http://a:1"}, Secret: handover.Secret{Token: "short"}}, "16 printable"},
		{"no URL", handover.Config{URLs: []string{"127.0.0.1:8300"}, Secret: secret}, "handover.urls[0]"},
		{"login in it", handover.Config{URLs: []string{"http://u:p@a:1"}, Secret: secret}, `handover.urls[0] = "http://…@a:1"`},
		{"server off", handover.ServerConfig{}, ""},
		{"server", handover.ServerConfig{Listen: "127.0.0.1:8300", Secret: secret}, ""},
		{"server without secret", handover.ServerConfig{Listen: "127.0.0.1:8300"}, "handover.token_file: is empty"},
	} {
		err := test.cfg.Validate()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

func TestServer(t *testing.T) {
	t.Parallel()
	cfg := handover.ServerConfig{Listen: "127.0.0.1:0", Secret: handover.Secret{TokenFile: filepath.Join(t.TempDir(), "none")}}
	if _, err := handover.Listen(cfg); err == nil || !strings.Contains(err.Error(), "handover.token_file") {
		t.Errorf("%v", err)
	}
	cfg.Secret = handover.Secret{Token: token}
	srv, err := handover.Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listen = srv.Addr().String()
	if _, err := handover.Listen(cfg); err == nil || !strings.Contains(err.Error(), "handover.listen") {
		t.Errorf("%v", err)
	}

	arrived := make(chan string, 1)
	testkit.Run(t, func(ctx context.Context) error {
		return srv.Run(ctx, func(_ context.Context, solved []byte) error { arrived <- string(solved); return nil })
	})
	c, _ := start(t, handover.Config{URLs: []string{"http://" + cfg.Listen}, Secret: cfg.Secret})
	c.Send([]byte("block"))
	receive(t, arrived)
}
