package sserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"btcpool/internal/httpapi"
)

//go:embed admin.yaml
var adminDescription []byte

// AdminAPI is where an operator looks at sessions and acts on them. Who reaches
// it can send all miners elsewhere: it is on this machine only.
type AdminAPI struct {
	Listen    string `toml:"listen" env:"SSERVER_ADMIN_API"` // a loopback address as host:port, or "unix:/path"; "": none
	Token     string `toml:"token" env:"SSERVER_ADMIN_TOKEN"`
	TokenFile string `toml:"token_file" env:"SSERVER_ADMIN_TOKEN_FILE"` // its text, without space around it, is the token
}

const (
	unixScheme      = "unix:"
	minAdminToken   = 16       // characters: nobody is to guess it
	maxAdminBody    = 16 << 10 // bytes
	adminTimeout    = 5 * time.Second
	adminGrace      = time.Second
	adminSocketMode = 0o660
)

func (a AdminAPI) validate() error {
	if a.Listen == "" {
		return nil
	}
	var errs []error
	path, unix := strings.CutPrefix(a.Listen, unixScheme)
	switch {
	case unix && path == "":
		errs = append(errs, fmt.Errorf("admin_api.listen = %q: must be like \"unix:/run/sserver.sock\"", a.Listen))
	case !unix:
		errs = append(errs, a.validateAddr())
	}
	switch {
	case a.Token != "" && a.TokenFile != "":
		errs = append(errs, errors.New("admin_api.token, admin_api.token_file: only one of them may be set"))
	case a.Token != "":
		errs = append(errs, checkAdminToken("admin_api.token", a.Token))
	case a.TokenFile == "" && !unix:
		errs = append(errs, errors.New("admin_api.token_file: is empty: every user of this machine reaches a port, so name a file with a secret"))
	}
	return errors.Join(errs...)
}

func (a AdminAPI) validateAddr() error {
	if err := validateListen("admin_api.listen", a.Listen); err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(a.Listen)
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return fmt.Errorf(`admin_api.listen = %q: must be an address of this machine only, like "127.0.0.1:9120", or "unix:/path"`, a.Listen)
	}
	return nil
}

func checkAdminToken(key, token string) error {
	if len(token) < minAdminToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%s: must be %d printable characters or more, without spaces", key, minAdminToken)
	}
	return nil
}

// token returns "" when there is none.
func (a AdminAPI) token() (string, error) {
	if a.TokenFile == "" {
		return a.Token, nil
	}
	text, err := os.ReadFile(a.TokenFile)
	if err != nil {
		return "", fmt.Errorf("admin_api.token_file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	return token, checkAdminToken("admin_api.token_file: "+a.TokenFile, token)
}

// adminAPI answers an operator. Requests never touch a session but by its loop.
type adminAPI struct {
	srv    *Service
	ln     net.Listener
	token  string        // "": who may open the socket may ask
	turn   chan struct{} // one request at a time, so that no number of them keeps the loops from their work
	drains drains
}

func listenAdmin(cfg AdminAPI, srv *Service) (*adminAPI, error) {
	a := &adminAPI{srv: srv, turn: make(chan struct{}, 1)}
	var err error
	if a.token, err = cfg.token(); err != nil {
		return nil, err
	}
	if path, ok := strings.CutPrefix(cfg.Listen, unixScheme); ok {
		a.ln, err = listenUnix(path)
	} else {
		a.ln, err = net.Listen("tcp", cfg.Listen)
	}
	if err != nil {
		return nil, fmt.Errorf("admin_api.listen = %q: %w", cfg.Listen, err)
	}
	return a, nil
}

// listenUnix opens a socket that its group may use too, in the place of one
// that a process has left which did not end properly.
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
	if err := os.Chmod(path, adminSocketMode); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// close ends an API that does not run.
func (a *adminAPI) close() error {
	if err := a.ln.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// run answers requests until ctx ends. Miners do not depend on it.
func (a *adminAPI) run(ctx context.Context) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	handler := a.handler(func(task func(context.Context)) { tasks.Go(func() { task(ctx) }) })
	if err := httpapi.Serve(ctx, a.ln, handler, adminGrace); err != nil {
		a.srv.log.Error().Err(err).Msg("requests of the operator are no longer answered")
	}
}

// adminError is an error that the operator is told.
type adminError struct {
	status        int
	code, message string
}

func (e *adminError) Error() string { return e.message }

func badRequest(format string, args ...any) error {
	return &adminError{http.StatusBadRequest, "invalid_request", fmt.Sprintf(format, args...)}
}

func conflict(format string, args ...any) error {
	return &adminError{http.StatusConflict, "conflict", fmt.Sprintf(format, args...)}
}

var (
	errNoSuchPath    = &adminError{http.StatusNotFound, "not_found", "there is nothing at this path"}
	errNoSuchSession = &adminError{http.StatusNotFound, "not_found", "there is no such session"}
	errUnauthorized  = &adminError{http.StatusUnauthorized, "unauthorized", "the token is not ours"}
	errBusy          = &adminError{http.StatusServiceUnavailable, "unavailable", "the sessions did not answer in time, try again"}
)

// action answers a request with what is to be encoded as JSON.
type action func(r *http.Request) (any, error)

// handler returns what answers requests; background starts what goes on after
// the answer.
func (a *adminAPI) handler(background func(func(context.Context))) http.Handler {
	mux := http.NewServeMux()
	handle := func(path string, methods map[string]action) {
		mux.Handle(path, a.methods(methods))
	}
	handle("/api/v1/status", map[string]action{"GET": a.getStatus})
	handle("/api/v1/sessions", map[string]action{"GET": a.getSessions})
	handle("/api/v1/sessions/{id}", map[string]action{"GET": a.getSession})
	handle("/api/v1/sessions/{id}/miners", map[string]action{"GET": a.getMiners})
	handle("/api/v1/kick", map[string]action{"POST": a.kick})
	handle("/api/v1/difficulty", map[string]action{"POST": a.setDifficulty})
	handle("/api/v1/message", map[string]action{"POST": a.message})
	handle("/api/v1/bans", map[string]action{"GET": a.getBans, "POST": a.addBan, "DELETE": a.liftBan})
	handle("/api/v1/drain", map[string]action{
		"GET":    func(r *http.Request) (any, error) { return a.getDrain(r) },
		"POST":   func(r *http.Request) (any, error) { return a.startDrain(r, background) },
		"DELETE": func(r *http.Request) (any, error) { return a.cancelDrain(r) },
	})
	mux.HandleFunc("GET /api/v1/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(adminDescription)
	})
	mux.Handle("/", a.answers(func(*http.Request) (any, error) { return nil, errNoSuchPath }))
	return a.guarded(mux)
}

// guarded lets only those in who know the token.
func (a *adminAPI) guarded(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(a.token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(given))
		if a.token != "" && (subtle.ConstantTimeCompare(got[:], want[:]) == 0 || !ok) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			a.refuse(w, errUnauthorized)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), adminTimeout)
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, maxAdminBody)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func (a *adminAPI) methods(of map[string]action) http.Handler {
	allowed := strings.Join(slices.Sorted(maps.Keys(of)), ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		do := of[r.Method]
		if do == nil {
			w.Header().Set("Allow", allowed)
			a.refuse(w, &adminError{http.StatusMethodNotAllowed, "method_not_allowed", "only " + allowed + " is answered here"})
			return
		}
		a.answers(do).ServeHTTP(w, r)
	})
}

func (a *adminAPI) answers(do action) http.Handler {
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
			a.srv.log.Info().Err(err).Str("method", r.Method).Stringer("url", r.URL).Bytes("order", order).
				Interface("answer", answer).Msg("request of the operator")
		}
		if err != nil {
			a.refuse(w, err)
			return
		}
		a.write(w, http.StatusOK, answer)
	})
}

func (a *adminAPI) refuse(w http.ResponseWriter, err error) {
	var known *adminError
	switch tooLarge := (*http.MaxBytesError)(nil); {
	case errors.As(err, &known):
	case errors.As(err, &tooLarge):
		known = &adminError{http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body is longer than %d bytes", maxAdminBody)}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		known = errBusy
	default:
		known = &adminError{http.StatusInternalServerError, "internal", err.Error()}
	}
	type fault struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	a.write(w, known.status, map[string]fault{"error": {known.code, known.message}})
}

func (a *adminAPI) write(w http.ResponseWriter, status int, answer any) {
	a.srv.metrics.adminRequests.WithLabelValues(strconv.Itoa(status)).Inc()
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // the requester may be gone
}

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

// query reads the parameters of a request. Each is taken at most once; done tells
// what was wrong or not asked for.
type query struct {
	values url.Values
	err    error
}

func parseQuery(r *http.Request) *query {
	values, err := url.ParseQuery(r.URL.RawQuery)
	q := &query{values: values}
	if err != nil {
		q.fail("the query is not well formed")
	}
	for name, v := range values {
		if len(v) > 1 {
			q.fail("parameter %.40q is given %d times", name, len(v))
		}
	}
	return q
}

func (q *query) text(name string) string {
	v := q.values.Get(name)
	delete(q.values, name)
	return v
}

func (q *query) integer(name string, otherwise, lowest, highest int) int {
	if !q.values.Has(name) {
		return otherwise
	}
	text := q.text(name)
	n, err := strconv.Atoi(text)
	if err != nil || n < lowest || n > highest {
		q.fail("%s = %.40q: must be an integer from %d to %d", name, text, lowest, highest)
	}
	return n
}

func (q *query) fail(format string, args ...any) {
	if q.err == nil {
		q.err = badRequest(format, args...)
	}
}

// done returns the first fault, parameters that nobody read among them.
func (q *query) done() error {
	for name := range q.values {
		q.fail("unknown parameter %.40q", name)
	}
	return q.err
}
