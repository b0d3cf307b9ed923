package statshttpd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	requestTimeout = 5 * time.Second
	answerMaxAge   = 2 // seconds that an answer of the API may be reused: what a cache in front of many viewers needs
	maxQueryBytes  = 64 << 10
)

// apiError is an error that its requester is told.
type apiError struct {
	status        int
	code, message string
}

func (e *apiError) Error() string { return e.message }

func badParameter(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, "invalid_parameter", fmt.Sprintf(format, args...)}
}

var (
	errNoSuchPath   = &apiError{http.StatusNotFound, "not_found", "there is nothing at this path"}
	errNoSuchWorker = &apiError{http.StatusNotFound, "not_found", "no such worker within the last hour"}
	errMethod       = &apiError{http.StatusMethodNotAllowed, "method_not_allowed", "only GET and HEAD are answered here"}
	errUnavailable  = &apiError{http.StatusServiceUnavailable, "unavailable", "the database does not answer, try again later"}
)

func (s *Service) routes() http.Handler {
	mux := http.NewServeMux()
	api := func(path, name string, answer func(r *http.Request, q *query) (any, error)) {
		mux.Handle(path, s.counted(name, s.api(answer)))
	}
	api("GET /api/v1/pool", "pool", s.getPool)
	api("GET /api/v1/workers", "workers", s.getWorkers)
	api("GET /api/v1/workers/{user}/{worker}", "worker", s.getWorker)
	api("GET /api/v1/blocks", "blocks", s.getBlocks)
	mux.Handle("GET /api/v1/openapi.yaml", s.counted("openapi", http.HandlerFunc(serveOpenAPI)))
	api("/", "other", func(*http.Request, *query) (any, error) { return nil, errNoSuchPath })

	// btcpool answers these to any of GET, HEAD and POST.
	legacy := func(path, name string, answer func(form url.Values) (any, error)) {
		h := s.counted(name, s.legacy(answer))
		mux.Handle("GET "+path, h)
		mux.Handle("POST "+path, h)
	}
	legacy("/pool_status", "pool_status", s.poolStatus)
	legacy("/worker_status", "worker_status", s.workerStatus)
	legacy("/flush_db_time", "flush_db_time", s.flushDBTime)

	page, status := s.counted("page", s.asset("index.html")), s.counted("pool_status", s.legacy(s.poolStatus))
	mux.Handle("GET /{$}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept")
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			page.ServeHTTP(w, r)
		} else {
			status.ServeHTTP(w, r)
		}
	}))
	mux.Handle("POST /{$}", status)
	mux.Handle("GET /favicon.svg", s.counted("asset", s.asset("favicon.svg")))
	mux.Handle("GET /assets/{name}", s.counted("asset", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asset(r.PathValue("name")).ServeHTTP(w, r)
	})))
	return secured(mux)
}

// secured says on every answer what a browser may do with it: nothing but show it with files from here.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// counted counts requests, bytes and time under name.
func (s *Service) counted(name string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := s.now()
		counter := &countingWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(counter, r)
		s.requests.Add(1)
		s.sent.Add(counter.bytes)
		s.metrics.requests.WithLabelValues(name, strconv.Itoa(counter.status)).Inc()
		s.metrics.answerSeconds.Observe(s.now().Sub(begin).Seconds())
	})
}

type countingWriter struct {
	http.ResponseWriter
	status int
	bytes  uint64
}

func (w *countingWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.bytes += uint64(n)
	return n, err
}

// api turns an answer or an error into JSON.
func (s *Service) api(answer func(*http.Request, *query) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := s.answer(r, answer)
		h := w.Header()
		h.Set("Content-Type", "application/json; charset=utf-8")
		if err == nil {
			h.Set("Cache-Control", "public, max-age="+strconv.Itoa(answerMaxAge))
			_, _ = w.Write(body) // the requester may be gone
			return
		}
		var known *apiError
		if !errors.As(err, &known) {
			s.log.Debug().Err(err).Str("path", r.URL.Path).Msg("request not answered") // the ledger warns, once
			known = errUnavailable
		}
		if known == errMethod {
			h.Set("Allow", "GET, HEAD")
		}
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(known.status)
		type fault struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		}
		_ = json.NewEncoder(w).Encode(map[string]fault{"error": {known.code, known.message}})
	})
}

func (s *Service) answer(r *http.Request, answer func(*http.Request, *query) (any, error)) ([]byte, error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return nil, errMethod
	}
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	v, err := answer(r, q)
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// query reads the parameters of a request. Each is taken at most once; done tells what was wrong or not asked for.
type query struct {
	values url.Values
	err    error
}

func parseQuery(raw string) (*query, error) {
	if len(raw) > maxQueryBytes {
		return nil, badParameter("the query is longer than %d bytes", maxQueryBytes)
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, badParameter("the query is not well formed")
	}
	for name, v := range values {
		if len(v) > 1 {
			return nil, badParameter("parameter %.40q is given %d times", name, len(v))
		}
	}
	return &query{values: values}, nil
}

// text returns the parameter, or otherwise when it is not given.
func (q *query) text(name, otherwise string, maxBytes int) string {
	if !q.values.Has(name) {
		return otherwise
	}
	v := q.values.Get(name)
	delete(q.values, name)
	if len(v) > maxBytes {
		q.fail("parameter %s is longer than %d bytes", name, maxBytes)
	}
	return v
}

func (q *query) integer(name string, otherwise, lowest, highest int) int {
	text := q.text(name, strconv.Itoa(otherwise), 20)
	n, err := strconv.Atoi(text)
	if err != nil || n < lowest || n > highest {
		q.fail("%s = %.40q: must be an integer from %d to %d", name, text, lowest, highest)
	}
	return n
}

// choice returns the parameter, which must be one of those named; without it the first.
func (q *query) choice(name string, of ...string) string {
	v := q.text(name, of[0], 40)
	if !slices.Contains(of, v) {
		q.fail("%s = %.40q: must be one of %s", name, v, strings.Join(of, ", "))
	}
	return v
}

func (q *query) fail(format string, args ...any) {
	if q.err == nil {
		q.err = badParameter(format, args...)
	}
}

// done returns the first fault, parameters that nobody read among them.
func (q *query) done() error {
	for name := range q.values {
		q.fail("unknown parameter %.40q", name)
	}
	return q.err
}

// asset serves a file of the dashboard; a browser asks each time whether it is still the same.
func (s *Service) asset(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := fs.ReadFile(s.web, name)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		serveFile(w, r, name, body)
	})
}

func serveOpenAPI(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	serveFile(w, r, "openapi.yaml", openAPI)
}

func serveFile(w http.ResponseWriter, r *http.Request, name string, body []byte) {
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(body)))
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(body))
}
