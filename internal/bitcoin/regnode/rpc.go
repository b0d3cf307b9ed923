package regnode

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	maxRequest   = 32 << 20 // Bitcoin Core's MAX_SIZE
	writeTimeout = 30 * time.Second
)

// Error codes of Bitcoin Core (src/rpc/protocol.h).
const (
	codeMisc           = -1
	codeNotFound       = -5
	codeBadParameter   = -8
	codeShuttingDown   = -9
	codeUndecodable    = -22
	codeMissingInputs  = -25
	codeRejected       = -26
	codeInvalidRequest = -32600
	codeUnknownMethod  = -32601
	codeParse          = -32700
)

type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *rpcError) Error() string { return e.Message }

func refuse(code int, format string, args ...any) error {
	return &rpcError{Code: code, Message: fmt.Sprintf(format, args...)}
}

type rpcAnswer struct {
	Result any             `json:"result"`
	Error  *rpcError       `json:"error"`
	ID     json.RawMessage `json:"id"`
}

// serveRPC answers one call as Bitcoin Core does: errors come with HTTP status 500, or 404 for an unknown method.
func (n *Node) serveRPC(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	if !n.authorized(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="jsonrpc"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Method != http.MethodPost {
		http.Error(w, "JSONRPC server handles only POST requests", http.StatusMethodNotAllowed)
		return
	}
	// ctx ends with the node, the request's context with its connection.
	callCtx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()

	var request struct {
		Method string          `json:"method"`
		Params json.RawMessage `json:"params"`
		ID     json.RawMessage `json:"id"`
	}
	var answer rpcAnswer
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	if err = json.Unmarshal(body, &request); err != nil {
		err = refuse(codeParse, "Parse error")
	} else {
		answer.ID = request.ID
		// A long poll outlives the server's time-outs, its answer does not.
		conn := http.NewResponseController(w)
		err = errors.Join(conn.SetReadDeadline(time.Time{}), conn.SetWriteDeadline(time.Time{}))
		if err == nil {
			answer.Result, err = n.call(callCtx, request.Method, request.Params)
		}
		err = errors.Join(err, conn.SetWriteDeadline(time.Now().Add(writeTimeout)))
	}

	status := http.StatusOK
	if err != nil {
		answer.Result = nil
		if !errors.As(err, &answer.Error) {
			answer.Error = &rpcError{Code: codeMisc, Message: err.Error()}
		}
		switch answer.Error.Code {
		case codeUnknownMethod:
			status = http.StatusNotFound
		case codeInvalidRequest:
			status = http.StatusBadRequest
		default:
			status = http.StatusInternalServerError
		}
	}
	var out bytes.Buffer
	if err := json.NewEncoder(&out).Encode(answer); err != nil {
		n.log.Error().Err(err).Str("method", request.Method).Msg("answer cannot be written")
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes()) // the caller may have gone away
}

func (n *Node) authorized(r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	got, want := sha256.Sum256([]byte(user+":"+password)), sha256.Sum256([]byte(n.user+":"+n.password))
	return ok && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// call calls one method. Params are positional.
func (n *Node) call(ctx context.Context, name string, raw json.RawMessage) (any, error) {
	if name == "" {
		return nil, refuse(codeInvalidRequest, "Missing method")
	}
	if name == "help" {
		return strings.Join(slices.Sorted(maps.Keys(methods)), "\n"), nil
	}
	method, ok := methods[name]
	if !ok {
		return nil, refuse(codeUnknownMethod, "Method not found")
	}
	var p params
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &p); err != nil {
			return nil, refuse(codeInvalidRequest, "Params must be an array")
		}
	}
	if len(p) < method.required || len(p) > method.allowed {
		return nil, refuse(codeMisc, "%s takes %d to %d parameters", name, method.required, method.allowed)
	}
	return method.call(n, ctx, p)
}

type params []json.RawMessage

// decode reads parameter i into v, which keeps its value when i was not given.
func (p params) decode(i int, v any) error {
	if i >= len(p) {
		return nil
	}
	if err := json.Unmarshal(p[i], v); err != nil {
		return refuse(codeBadParameter, "parameter %d has the wrong type", i+1)
	}
	return nil
}
