package statshttpd

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"btcpool/internal/httpapi"
)

const (
	requestTimeout = 5 * time.Second
	answerMaxAge   = 2 // seconds that an answer of the API may be reused: what a cache in front of many viewers needs
)

var (
	errNoSuchPath   = httpapi.Errorf(http.StatusNotFound, "not_found", "there is nothing at this path")
	errNoSuchWorker = httpapi.Errorf(http.StatusNotFound, "not_found", "no such worker is known")
	errNoSuchUser   = httpapi.Errorf(http.StatusNotFound, "not_found", "no such user is known")
	errMethod       = httpapi.Errorf(http.StatusMethodNotAllowed, "method_not_allowed", "only GET and HEAD are answered here")
	errUnavailable  = httpapi.Errorf(http.StatusServiceUnavailable, "unavailable", "the database does not answer, try again later")
)

// endpoint answers a path of the API. The name is its label in metrics.
type endpoint struct {
	path, name string
	answer     func(r *http.Request, q *httpapi.Query) (any, error)
	table      bool // it answers as CSV too
}

// endpoints are the paths of the API below apiRoot, each described in openapi.yaml.
func (s *Service) endpoints() []endpoint {
	return []endpoint{
		{"/pool", "pool", s.getPool, false},
		{"/pool/history", "pool_history", s.history(s.thePool), true},
		{"/pool/rejects", "pool_rejects", s.rejects(s.thePool), true},
		{"/users", "users", s.getUsers, true},
		{"/users/{user}", "user", s.getUser, false},
		{"/users/{user}/groups", "groups", s.getGroups, true},
		{"/users/{user}/history", "user_history", s.history(s.theUser), true},
		{"/users/{user}/rejects", "user_rejects", s.rejects(s.theUser), true},
		{"/workers", "workers", s.getWorkers, true},
		{"/workers/{user}/{worker}", "worker", s.getWorker, false},
		{"/workers/{user}/{worker}/history", "worker_history", s.history(s.theWorker), true},
		{"/workers/{user}/{worker}/rejects", "worker_rejects", s.rejects(s.theWorker), true},
		{"/blocks", "blocks", s.getBlocks, true},
		{"/merged-blocks", "merged_blocks", s.getMergedBlocks, true},
		{"/rounds", "rounds", s.getRounds, true},
		{"/servers", "servers", s.getServers, true},
	}
}

const apiRoot = "/api/v1"

// Handler answers everything that statshttpd answers.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, e := range s.endpoints() {
		mux.Handle(apiRoot+e.path, s.cors(s.counted(e.name, s.api(e))))
	}
	for _, e := range s.shapes() {
		mux.Handle(e.path, s.cors(s.counted(e.name, s.api(e))))
	}
	mux.Handle("GET "+apiRoot+"/openapi.yaml", s.counted("openapi", s.description("openapi.yaml", openAPI)))
	mux.Handle("GET "+apiRoot+"/shapes.yaml", s.counted("openapi", s.description("shapes.yaml", shapesAPI)))
	mux.Handle("/", s.counted("other", s.api(endpoint{answer: func(*http.Request, *httpapi.Query) (any, error) { return nil, errNoSuchPath }})))

	// btcpool answers these to any of GET, HEAD and POST.
	legacy := func(path, name string, answer func(form url.Values) httpapi.Legacy) {
		h := s.counted(name, s.legacy(answer))
		mux.Handle("GET "+path, h)
		mux.Handle("POST "+path, h)
	}
	legacy("/pool_status", "pool_status", s.poolStatus)
	legacy("/worker_status", "worker_status", s.workerStatus)
	legacy("/worker_status/{$}", "worker_status", s.workerStatus)
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
	mux.Handle("GET /logo", s.counted("asset", http.HandlerFunc(s.serveLogo)))
	mux.Handle("GET /favicon.svg", s.counted("asset", s.asset("favicon.svg")))
	mux.Handle("GET /assets/{name}", s.counted("asset", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asset(r.PathValue("name")).ServeHTTP(w, r)
	})))
	events := http.NewServeMux()
	events.Handle(apiRoot+eventsPath, s.cors(s.counted("events", http.HandlerFunc(s.serveEvents))))
	if slices.Contains(s.cfg.Shapes, NOMP) {
		events.Handle(nompLive, s.cors(s.counted("nomp_live_stats", http.HandlerFunc(s.serveLiveStats))))
	}
	events.Handle("/", s.bounded(mux))
	return secured(events)
}

// eventsPath is the one below apiRoot that is answered for as long as somebody listens.
const eventsPath = "/events"

// bounded ends a request that takes too long, and tells how long each takes.
func (s *Service) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := s.now()
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
		s.metrics.answerSeconds.Observe(s.now().Sub(begin).Seconds())
	})
}

// secured says on every answer what a browser may do with it: nothing but show it with files from here.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// counted counts requests and bytes under name.
func (s *Service) counted(name string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		counter := &countingWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(counter, r)
		s.requests.Add(1)
		s.sent.Add(counter.bytes)
		s.metrics.requests.WithLabelValues(name, strconv.Itoa(counter.status)).Inc()
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

// Unwrap is for http.ResponseController.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// plainText is an answer that is sent as it is.
type plainText []byte

// api turns an answer or an error into JSON.
func (s *Service) api(e endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, contentType, err := s.answer(r, e)
		h := w.Header()
		if err == nil {
			h.Set("Content-Type", contentType)
			h.Set("Cache-Control", "public, max-age="+strconv.Itoa(answerMaxAge))
			send(w, r, body)
			return
		}
		known, ok := errors.AsType[*httpapi.Error](err)
		if !ok {
			s.log.Debug().Err(err).Str("path", r.URL.Path).Msg("request not answered") // the ledger warns, once
			known = errUnavailable
		}
		if known == errMethod {
			h.Set("Allow", "GET, HEAD")
		}
		httpapi.Refuse(w, known)
	})
}

func (s *Service) answer(r *http.Request, e endpoint) (body []byte, contentType string, err error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return nil, "", errMethod
	}
	q := httpapi.ParseQuery(r.URL.RawQuery, "invalid_parameter")
	asTable := e.table && q.Choice("format", "json", "csv") == "csv"
	v, err := e.answer(r, q)
	if err != nil {
		return nil, "", err
	}
	if asTable {
		return table(v), "text/csv; charset=utf-8", nil
	}
	if text, ok := v.(plainText); ok {
		return text, "text/plain; charset=utf-8", nil
	}
	body, err = json.Marshal(v)
	return body, "application/json; charset=utf-8", err
}

// asset serves a file of the dashboard; a browser asks each time whether it is still the same.
func (s *Service) asset(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := s.files[name]
		if !ok {
			var err error
			if body, err = fs.ReadFile(s.web, name); err != nil {
				http.NotFound(w, r)
				return
			}
		}
		s.serveFile(w, r, name, body)
	})
}

// description serves an OpenAPI document.
func (s *Service) description(name string, text []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		s.serveFile(w, r, name, text)
	})
}

func (s *Service) serveFile(w http.ResponseWriter, r *http.Request, name string, body []byte) {
	h := w.Header()
	if h.Get("Content-Type") == "" {
		kind := mime.TypeByExtension(path.Ext(name))
		if kind == "" {
			kind = http.DetectContentType(body)
		}
		h.Set("Content-Type", kind)
	}
	h.Set("Cache-Control", "no-cache")
	sendPacked(w, r, body, func(tag string, c coding) []byte { return s.packs.pack(tag, c, body) })
}
