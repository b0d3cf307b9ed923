package operator

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/config"
	"btcpool/internal/httpapi"
	"btcpool/internal/telemetry"
)

// OpenAPI describes the API.
//
//go:embed openapi.yaml
var OpenAPI []byte

const (
	maxBody        = 16 << 10 // bytes
	requestTimeout = 5 * time.Second
	stopGrace      = time.Second
	socketMode     = 0o660
)

// API answers an operator.
type API struct {
	srv      Server
	log      zerolog.Logger
	requests *prometheus.CounterVec // code
	ln       net.Listener
	token    string        // "": who may open the socket may ask
	turn     chan struct{} // one request at a time, so that no number of them keeps the loops from their work
	draining drain
}

// Listen opens the address of cfg, which must not be empty.
func Listen(cfg APIConfig, srv Server, deps telemetry.Deps) (*API, error) {
	requests := telemetry.Metrics(deps.Metrics, "sserver").Counters("admin_requests_total", "Requests of the admin API, by HTTP status.", "code")
	a := &API{srv: srv, log: deps.Log, requests: requests, turn: make(chan struct{}, 1)}
	var err error
	if a.token, err = cfg.ReadToken(); err != nil {
		return nil, config.In("admin_api", err)
	}
	if file := deps.Predecessor.Listener(Name(cfg)); file != nil {
		a.ln, err = net.FileListener(file)
		file.Close()
	} else if path, ok := strings.CutPrefix(cfg.Listen, unixScheme); ok {
		a.ln, err = listenUnix(path)
	} else {
		a.ln, err = net.Listen("tcp", cfg.Listen)
	}
	if err != nil {
		return nil, &config.ListenError{Key: "admin_api.listen", Addr: cfg.Listen, Err: err}
	}
	return a, nil
}

// Name is what the socket of the API is called where it passes to another process.
func Name(cfg APIConfig) string { return "admin_api.listen " + cfg.Listen }

// File returns the socket that listens, for another process.
func (a *API) File() (*os.File, error) {
	return a.ln.(interface{ File() (*os.File, error) }).File() // TCP's or a Unix socket's
}

// Leave leaves the socket to another process: its file stays.
func (a *API) Leave() {
	if ln, ok := a.ln.(*net.UnixListener); ok {
		ln.SetUnlinkOnClose(false)
	}
}

// Addr returns where requests go.
func (a *API) Addr() net.Addr { return a.ln.Addr() }

// listenUnix opens a socket that its group may use too, in the place of one that a process has left which did not end
// properly.
func listenUnix(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			conn.Close()
			return nil, errors.New("another process listens there")
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// Close ends an API that does not run.
func (a *API) Close() error {
	if err := a.ln.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Run answers requests until ctx ends. Miners do not depend on it.
func (a *API) Run(ctx context.Context) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	handler := a.handler(func(task func(context.Context)) { tasks.Go(func() { task(ctx) }) })
	if err := httpapi.Serve(ctx, a.ln, handler, stopGrace); err != nil {
		a.log.Error().Err(err).Msg("requests of the operator are no longer answered")
	}
}

// invalid is the code of requests that are not as described.
const invalid = "invalid_request"

func badRequest(format string, args ...any) error {
	return httpapi.Errorf(http.StatusBadRequest, invalid, format, args...)
}

func conflict(format string, args ...any) error {
	return httpapi.Errorf(http.StatusConflict, "conflict", format, args...)
}

func notFound(format string, args ...any) error {
	return httpapi.Errorf(http.StatusNotFound, "not_found", format, args...)
}

var (
	errNoSuchPath    = notFound("there is nothing at this path")
	errNoSuchSession = notFound("there is no such session")
	errUnauthorized  = httpapi.Errorf(http.StatusUnauthorized, "unauthorized", "the token is not ours")
	errBusy          = httpapi.Errorf(http.StatusServiceUnavailable, "unavailable", "the sessions did not answer in time, try again")
)

// action answers a request with what is to be encoded as JSON.
type action func(r *http.Request) (any, error)

const root = "/api/v1"

// paths are those of the API below root, by method, each described in openapi.yaml. background starts what goes on
// after the answer.
func (a *API) paths(background func(func(context.Context))) map[string]map[string]action {
	return map[string]map[string]action{
		"/status":               {"GET": a.getStatus},
		"/sessions":             {"GET": a.getSessions},
		"/sessions/{id}":        {"GET": a.getSession},
		"/sessions/{id}/miners": {"GET": a.getMiners},
		"/kick":                 {"POST": a.kick},
		"/difficulty":           {"POST": a.setDifficulty},
		"/message":              {"POST": a.message},
		"/bans":                 {"GET": a.getBans, "POST": a.addBan, "DELETE": a.liftBan},
		"/drain": {
			"GET":    a.getDrain,
			"POST":   func(r *http.Request) (any, error) { return a.startDrain(r, background) },
			"DELETE": a.cancelDrain,
		},
	}
}

// handler returns what answers requests; background is that of paths.
func (a *API) handler(background func(func(context.Context))) http.Handler {
	mux := http.NewServeMux()
	for path, methods := range a.paths(background) {
		mux.Handle(root+path, a.methods(methods))
	}
	mux.HandleFunc("GET "+root+"/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(OpenAPI)
	})
	mux.Handle("/", a.answers(func(*http.Request) (any, error) { return nil, errNoSuchPath }))
	return a.guarded(mux)
}

// guarded lets only those in who know the token.
func (a *API) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.token != "" && !httpapi.Authorized(r, a.token) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			a.refuse(w, errUnauthorized)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func (a *API) methods(of map[string]action) http.Handler {
	allowed := strings.Join(slices.Sorted(maps.Keys(of)), ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		do := of[r.Method]
		if do == nil {
			w.Header().Set("Allow", allowed)
			a.refuse(w, httpapi.Errorf(http.StatusMethodNotAllowed, "method_not_allowed", "only %s is answered here", allowed))
			return
		}
		a.answers(do).ServeHTTP(w, r)
	})
}

func (a *API) answers(do action) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		order, err := io.ReadAll(r.Body)
		if err != nil {
			a.refuse(w, err)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(order))
		select {
		case a.turn <- struct{}{}:
			defer func() { <-a.turn }()
		case <-r.Context().Done():
			a.refuse(w, errBusy)
			return
		}
		answer, err := do(r)
		if r.Method != http.MethodGet {
			a.log.Info().Err(err).Str("method", r.Method).Stringer("url", r.URL).Bytes("order", order).
				Interface("answer", answer).Msg("request of the operator")
		}
		if err != nil {
			a.refuse(w, err)
			return
		}
		a.count(http.StatusOK)
		w.Header().Set("Cache-Control", "no-store")
		httpapi.Write(w, http.StatusOK, answer)
	})
}

func (a *API) refuse(w http.ResponseWriter, err error) {
	var known *httpapi.Error
	switch tooLarge := (*http.MaxBytesError)(nil); {
	case errors.As(err, &known):
	case errors.As(err, &tooLarge):
		known = httpapi.Errorf(http.StatusRequestEntityTooLarge, "too_large", "the body is longer than %d bytes", maxBody)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		known = errBusy
	default:
		known = httpapi.Errorf(http.StatusInternalServerError, "internal", "%v", err)
	}
	a.count(known.Status)
	httpapi.Refuse(w, known)
}

func (a *API) count(status int) { a.requests.WithLabelValues(strconv.Itoa(status)).Inc() }

// body reads the one JSON object that a request consists of.
func body[T any](r *http.Request) (v T, err error) {
	if r.URL.RawQuery != "" {
		return v, badRequest("parameters belong into the body here")
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, badRequest("the body is not as described: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return v, badRequest("the body is more than one JSON object")
	}
	return v, nil
}

func parseQuery(r *http.Request) *httpapi.Query { return httpapi.ParseQuery(r.URL.RawQuery, invalid) }
