// Package httpapi is what the HTTP interfaces of services have in common: the server, tokens, parameters, one shape of
// errors, and btcpool's own envelope.
package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// MaxConnections is how many connections Serve keeps open at a time.
const MaxConnections = 512

// Serve answers requests on ln until ctx ends, then gives those under way up to grace to finish and returns nil. It
// closes ln. Slow peers are bounded by time-outs, many by MaxConnections; a handler that streams lifts its write deadline
// itself (http.ResponseController).
func Serve(ctx context.Context, ln net.Listener, h http.Handler, grace time.Duration) error {
	return ServeUpTo(ctx, MaxConnections, func() {}, ln, h, grace)
}

// ServeUpTo is Serve with another number of connections; closed is called for each that made room, or found none.
func ServeUpTo(ctx context.Context, connections int, closed func(), ln net.Listener, h http.Handler, grace time.Duration) error {
	srv := &http.Server{
		Handler:           h,
		ConnState:         newCrowd(connections, closed).changed,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve http on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := srv.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	if end := <-served; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return err
}

// scheme begins the header that shows a token (RFC 6750).
const scheme = "Bearer "

// Authorized reports whether r shows the token. It takes the same time whatever r shows.
func Authorized(r *http.Request, token string) bool {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), scheme)
	want, got := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1 && ok
}

// Authorize has r show the token.
func Authorize(r *http.Request, token string) { r.Header.Set("Authorization", scheme+token) }

// Error is an error that the requester is told.
type Error struct {
	Status        int
	Code, Message string
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an Error; the code is a word that programs can rely on.
func Errorf(status int, code, format string, args ...any) *Error {
	return &Error{status, code, fmt.Sprintf(format, args...)}
}

// Write answers with v as JSON.
func Write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the requester may be gone
}

// Refuse answers with e: {"error":{"code":…,"message":…}}. No cache keeps it.
func Refuse(w http.ResponseWriter, e *Error) {
	type fault struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Set("Cache-Control", "no-store")
	Write(w, e.Status, map[string]fault{"error": {e.Code, e.Message}})
}
