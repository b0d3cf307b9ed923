package handover

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"btcpool/internal/config"
	"btcpool/internal/httpapi"
	"btcpool/internal/share"
)

// grace is how long requests under way may take when we are to stop.
const grace = 5 * time.Second

// Server is blkmaker's side.
type Server struct {
	ln    net.Listener
	token string
}

// Listen opens the address of cfg, which must not be empty.
func Listen(cfg ServerConfig) (*Server, error) {
	token, err := cfg.token().Read()
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, &config.ListenError{Key: "handover.listen", Addr: cfg.Listen, Err: err}
	}
	return &Server{ln, token}, nil
}

// Addr returns where s listens.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Close ends a server that does not run.
func (s *Server) Close() error { return s.ln.Close() }

// Run serves Handler until ctx ends.
func (s *Server) Run(ctx context.Context, take func(ctx context.Context, solved []byte) error) error {
	return httpapi.Serve(ctx, s.ln, Handler(s.token, take), grace)
}

// Handler gives solved shares to take, as share.WithName makes them. Its error wraps share.ErrSolved for what is none. A nil error must mean that
// the share is on disk.
func Handler(token string, take func(ctx context.Context, solved []byte) error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		if !httpapi.Authorized(r, token) {
			http.Error(w, "the token is not ours", http.StatusUnauthorized)
			return
		}
		solved, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err == nil && len(solved) > 0 { // else it is a probe
			err = take(r.Context(), share.WithName(r.Header.Get(nameHeader), solved))
		}
		switch tooLarge := (*http.MaxBytesError)(nil); {
		case err == nil:
			w.WriteHeader(http.StatusNoContent)
		case errors.As(err, &tooLarge):
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		case errors.Is(err, share.ErrSolved):
			http.Error(w, err.Error(), http.StatusBadRequest)
		default:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	return mux
}
