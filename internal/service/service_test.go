package service_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"btcpool/internal/config"
	"btcpool/internal/httpapi"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
)

func TestMain(m *testing.M) {
	testscript.Main(leakCheck{m}, programs)
}

// programs are what this program is, too, by the name that it is called by.
var programs = map[string]func(){
	"frame": func() { os.Exit(service.Main("frame", os.Args[1:], os.Stderr, defaults(), build)) },
}

type leakCheck struct{ *testing.M }

func (m leakCheck) Run() int {
	code := m.M.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

type testConfig struct {
	service.Common
	Name     string          `toml:"name" env:"NAME"`
	Interval config.Duration `toml:"interval" env:"INTERVAL"`
	Kafka    struct {
		Brokers []string `toml:"brokers" env:"BROKERS"`
	} `toml:"kafka"`
}

func defaults() testConfig { return testConfig{Name: "default"} }

func (c testConfig) Validate() error {
	var errs []error
	if c.Name == "" {
		errs = append(errs, fmt.Errorf("name = %q: must not be empty", c.Name))
	}
	if c.Interval < 0 {
		errs = append(errs, fmt.Errorf("interval = %q: must not be negative", c.Interval))
	}
	return errors.Join(errs...)
}

// runner is a service made of functions.
type runner struct {
	run   func(ctx context.Context) error
	ready func() error
}

func (r runner) Run(ctx context.Context) error { return r.run(ctx) }
func (r runner) Ready() error                  { return r.ready() }
func (r runner) Close() error                  { return nil }

// build makes a service that tells its configuration and is done.
func build(cfg testConfig, deps service.Deps) (runner, error) {
	if cfg.Name == "unbuildable" {
		return runner{}, errors.New("it is unbuildable")
	}
	return runner{
		ready: func() error { return nil },
		run: func(context.Context) error {
			if cfg.Name == "failing" {
				return errors.New("it is failing")
			}
			show := deps.Log.Info
			if cfg.Log.Level == "error" {
				show = deps.Log.Debug
			}
			show().Str("name", cfg.Name).Stringer("interval", shown(cfg.Interval)).
				Str("brokers", strings.Join(cfg.Kafka.Brokers, ",")).Msg("running")
			return nil
		},
	}, nil
}

// shown spells a duration as a file would.
type shown config.Duration

func (d shown) String() string {
	if d := config.Duration(d).Std(); d < 2*time.Minute {
		return strconv.Itoa(int(d/time.Second)) + "s"
	}
	return config.Duration(d).String()
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: testkit.Updating(),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// exits CODE COMMAND…: the command ends with that exit code.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				code := 0
				if exit := new(exec.ExitError); errors.As(err, &exit) {
					code = exit.ExitCode()
				}
				if strconv.Itoa(code) != args[0] {
					ts.Fatalf("exit code %d, want %s", code, args[0])
				}
			},
		},
	})
}

// process is Main in a goroutine.
type process struct {
	t     *testing.T
	lines chan map[string]any
	code  chan int
}

func start(t *testing.T, cfg testConfig, build func(testConfig, service.Deps) (runner, error)) *process {
	t.Helper()
	return startMain(t, func(stderr io.Writer) int { return service.Main("frame", nil, stderr, cfg, build) })
}

func startMain(t *testing.T, main func(stderr io.Writer) (code int)) *process {
	t.Helper()
	p := &process{t: t, lines: make(chan map[string]any, 100), code: make(chan int, 1)}
	r, w := io.Pipe()
	go func() {
		p.code <- main(w)
		w.Close()
	}()
	go func() {
		defer close(p.lines)
		for scanner := bufio.NewScanner(r); scanner.Scan(); {
			line := make(map[string]any)
			if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
				t.Errorf("log line %q: %v", scanner.Text(), err)
			}
			p.lines <- line
		}
	}()
	return p
}

// logged waits for a line with that message.
func (p *process) logged(message string) map[string]any {
	p.t.Helper()
	for line := range p.lines {
		if line["message"] == message {
			return line
		}
	}
	p.t.Fatalf("no log line %q", message)
	return nil
}

func (p *process) kill() {
	p.t.Helper()
	if err := signalSelf(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
}

func signalSelf(sig os.Signal) error {
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	return self.Signal(sig)
}

func (p *process) exits(want int) {
	p.t.Helper()
	if got := <-p.code; got != want {
		p.t.Errorf("exit code %d, want %d", got, want)
	}
	for range p.lines {
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestLifeUnderSystemd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenPacket("unixgram", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "200000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	notified := func(want string) {
		t.Helper()
		buf := make([]byte, 100)
		for {
			_ = systemd.SetReadDeadline(time.Now().Add(testkit.Patience))
			n, _, err := systemd.ReadFrom(buf)
			if err != nil {
				t.Fatalf("waiting for %s: %v", want, err)
			}
			if string(buf[:n]) == want {
				return
			}
		}
	}

	var missing holder
	missing.Store(errors.New("no template yet"))
	drained, drain := make(chan struct{}), make(chan struct{})
	cfg := defaults()
	cfg.Admin = "127.0.0.1:0"
	p := start(t, cfg, func(_ testConfig, deps service.Deps) (runner, error) {
		promauto.With(deps.Metrics).NewCounter(prometheus.CounterOpts{Name: "btcpool_frame_things_total"}).Inc()
		promauto.With(deps.For("inner").Metrics).NewCounter(prometheus.CounterOpts{Name: "btcpool_inner_things_total"}).Inc()
		return runner{
			run: func(ctx context.Context) error {
				<-ctx.Done()
				<-drain
				close(drained)
				return nil
			},
			ready: missing.Load,
		}, nil
	})
	admin := "http://" + p.logged("admin listening")["addr"].(string)
	if got := p.logged("not ready yet")["missing"]; got != "no template yet" {
		t.Errorf("missing: %v", got)
	}
	type answer struct {
		Code int
		Body string
	}
	check := func(path string, want answer) {
		t.Helper()
		code, body := get(t, admin+path)
		if diff := cmp.Diff(want, answer{code, body}); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
	check("/healthz", answer{200, "ok\n"})
	check("/readyz", answer{503, "no template yet\n"})
	health := func(wantCode int, want string) {
		t.Helper()
		asked := cfg
		asked.Admin = strings.TrimPrefix(admin, "http://")
		var said strings.Builder
		code := service.Main("frame", []string{"-health"}, &said, asked, build)
		if code != wantCode || !strings.HasPrefix(said.String(), want) {
			t.Errorf("-health ended with code %d, %q", code, said.String())
		}
	}
	health(1, "frame: no template yet\n")
	notified("STATUS=waiting: no template yet")
	notified("WATCHDOG=1")
	missing.Store(nil)
	notified("READY=1\nSTATUS=ready")
	notified("WATCHDOG=1")
	health(0, "")
	check("/readyz", answer{200, "ready\n"})
	missing.Store(errors.Join(errors.New("no Kafka"), errors.New("no node")))
	notified("STATUS=waiting: no Kafka; no node")
	missing.Store(nil)
	notified("STATUS=ready")
	_, metrics := get(t, admin+"/metrics")
	for _, want := range []string{
		`btcpool_frame_things_total{service="frame"} 1`,
		`btcpool_inner_things_total{service="inner"} 1`,
		`btcpool_build_info{go="go1.`,
		"go_goroutines ",
		"process_open_fds ",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}

	p.kill()
	notified("STOPPING=1")
	check("/readyz", answer{503, "stopping\n"})
	close(drain)
	p.exits(0)
	<-drained
	health(1, "frame: not running: ")
}

// holder holds an error for any goroutine.
type holder struct{ at atomic.Pointer[error] }

func (h *holder) Store(err error) { h.at.Store(&err) }
func (h *holder) Load() error     { return *h.at.Load() }

func TestDoesNotDrain(t *testing.T) {
	for _, tc := range []struct {
		name    string
		timeout config.Duration
		kills   int
		logs    string
	}{
		{"in time", config.Duration(10 * time.Millisecond), 1, "not drained in time"},
		{"before a second signal", config.Duration(time.Hour), 2, "second signal, not drained"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			end := make(chan struct{})
			running := make(chan struct{})
			cfg := defaults()
			cfg.StopTimeout = tc.timeout
			p := start(t, cfg, func(testConfig, service.Deps) (runner, error) {
				return runner{
					run:   func(context.Context) error { close(running); <-end; return nil },
					ready: func() error { return nil },
				}, nil
			})
			<-running
			p.kill()
			p.logged("stopping")
			for range tc.kills - 1 {
				p.kill()
			}
			p.logged(tc.logs)
			p.exits(1)
			close(end)
		})
	}
}

func TestServeHTTP(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	entered := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- httpapi.Serve(ctx, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			entered <- struct{}{}
			<-ctx.Done()
			if r.URL.Path == "/hangs" {
				<-r.Context().Done()
			}
			fmt.Fprint(w, "finished")
		}), 5*time.Second) // in which a busy machine, too, finishes what does not hang
	}()
	bodies := make(chan string, 2)
	client := &http.Client{Transport: &http.Transport{}}
	for _, path := range []string{"/", "/hangs"} {
		go func() {
			res, err := client.Get("http://" + ln.Addr().String() + path)
			if err != nil {
				bodies <- ""
				return
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			bodies <- string(body)
		}()
		<-entered
	}
	cancel()
	got := []string{<-bodies, <-bodies}
	if diff := cmp.Diff([]string{"finished", ""}, got); diff != "" {
		t.Error(diff)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	client.CloseIdleConnections()

	if err := httpapi.Serve(t.Context(), ln, nil, 0); err == nil {
		t.Error("served on a closed listener")
	}
}

func TestAdminHandlerMethods(t *testing.T) {
	t.Parallel()
	h := service.AdminHandler(prometheus.NewRegistry(), func() error { return nil })
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", path, nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	var d config.Duration
	if err := d.UnmarshalText([]byte("1h30m")); err != nil || d.Std() != 90*time.Minute {
		t.Errorf("got %v, %v", d, err)
	}
	if text, err := d.MarshalText(); string(text) != "1h30m0s" || err != nil {
		t.Errorf("got %s, %v", text, err)
	}
	if err := d.UnmarshalText([]byte("90")); err == nil || d.Std() != 90*time.Minute {
		t.Errorf("without a unit: %v, %v", d, err)
	}
}
