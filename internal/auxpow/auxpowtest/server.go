package auxpowtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
)

// server is a node's RPC over HTTP. It wants the login user:secret, if any.
type server struct {
	http *httptest.Server

	mu       sync.Mutex // guards the fields of the node too
	down     bool
	accepted []string // hashes in display order
}

// start serves call, which is given the parameters as text and is called with mu held.
func (s *server) start(call func(method string, params []string) (any, error)) {
	s.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.do(func() { s.serve(w, r, call) })
	}))
}

// Close ends the node.
func (s *server) Close() { s.http.Close() }

// URL returns the address of the node's RPC.
func (s *server) URL() string { return s.http.URL }

// SetDown makes the node fail every call, or answer again.
func (s *server) SetDown(down bool) { s.do(func() { s.down = down }) }

// Accepted returns the hashes of the blocks that the node has taken.
func (s *server) Accepted() (hashes []string) {
	s.do(func() { hashes = slices.Clone(s.accepted) })
	return hashes
}

// do calls f while the node answers no call.
func (s *server) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *server) serve(w http.ResponseWriter, r *http.Request, call func(method string, params []string) (any, error)) {
	if s.down {
		http.Error(w, "down", http.StatusBadGateway)
		return
	}
	if user, password, ok := r.BasicAuth(); ok && user+":"+password != "user:secret" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var request struct {
		Method string
		Params []any
		ID     any
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	params := make([]string, len(request.Params))
	for i, p := range request.Params {
		params[i] = fmt.Sprint(p)
	}
	answer := map[string]any{"id": request.ID}
	if result, err := call(request.Method, params); err != nil {
		answer["error"] = err
	} else {
		answer["result"] = result
	}
	_ = json.NewEncoder(w).Encode(answer)
}

type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *rpcError) Error() string { return e.Message }
