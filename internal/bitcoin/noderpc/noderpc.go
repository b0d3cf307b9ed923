// Package noderpc talks to a Bitcoin node: JSON-RPC over HTTP for templates, blocks and the state of the chain, ZeroMQ
// for the news of a block. It speaks to Bitcoin Core 25 and newer and to btcd, whose answers differ in detail; callers
// need not know which one they have.
//
// Every call has a deadline and a bound on the size of its answer. Errors say what an operator should look at.
package noderpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"btcpool/internal/config"

	"github.com/tidwall/gjson"
)

// maxAnswer bounds one answer. A template of a full block is about 9 MB: twice the 4 MB of its transactions, written in
// hex.
const maxAnswer = 64 << 20

// Client calls one node. It is safe for concurrent use.
type Client struct {
	cfg  Config
	url  string
	http *http.Client

	mu   sync.Mutex
	auth *login // nil until it is needed first
}

type login struct{ user, password string }

// Error is the node's own refusal of a call.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return fmt.Sprintf("node error %d: %s", e.Code, e.Message) }

// New returns a client of the node that cfg names. It does not call the node.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	u, err := cfg.endpoint()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     20 * time.Second, // Bitcoin Core closes idle connections after 30 s (rpcservertimeout)
		DisableCompression:  true,
		TLSHandshakeTimeout: defaultTimeout,
	}
	if cfg.CAFile != "" {
		transport.DialTLSContext = cfg.dialTLS
	}
	return &Client{
		cfg: cfg,
		url: u.String(),
		http: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// dialTLS connects to a node whose certificate is signed by one of CAFile. The file is read for each connection: btcd
// writes its rpc.cert when it is started for the first time, and a new one when that has run out.
func (c Config) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("rpc_ca_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("rpc_ca_file = %q: holds no PEM certificate", c.CAFile)
	}
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	return dialer.DialContext(ctx, network, addr)
}

// URL returns the address of the node's RPC, for logs.
func (c *Client) URL() string { return c.url }

// Close ends the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Call calls method and decodes its result into result, which may be nil. The node's refusal is an *Error.
func (c *Client) Call(ctx context.Context, method string, result any, params ...any) error {
	request, err := newRequest(method, params...)
	if err != nil {
		return err
	}
	answer, err := c.send(ctx, c.cfg.timeout(), method, request, c.check, nil)
	if err != nil || result == nil {
		return err
	}
	if err := json.Unmarshal([]byte(gjson.GetBytes(answer, "result").Raw), result); err != nil {
		return fmt.Errorf("%s: unexpected result from the node at %s: %w", method, c.url, err)
	}
	return nil
}

// newRequest returns the body of a call.
func newRequest(method string, params ...any) ([]byte, error) {
	if params == nil {
		params = []any{}
	}
	// The id is constant so that equal results are equal texts. Without "jsonrpc" btcd answers with nothing, and with
	// "2.0" newer Bitcoin Cores leave out the error key.
	request, err := json.Marshal(struct {
		JSONRPC string `json:"jsonrpc"`
		ID      string `json:"id"`
		Method  string `json:"method"`
		Params  []any  `json:"params"`
	}{"1.0", "1", method, params})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	return request, nil
}

// send posts a request for method and returns the whole text of the answer in which check finds no fault. Of one with
// the status of success arrived is given what has come so far, unless it is nil.
func (c *Client) send(ctx context.Context, timeout time.Duration, method string, request []byte, check func(status int, answer []byte) error, arrived func([]byte)) ([]byte, error) {
	callCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	status, answer, err := c.exchange(callCtx, request, arrived)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("%s: no answer from the node at %s within %s: %w", method, c.url, timeout, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%s: nothing listens at %s: is the node running, and is rpc_url right? %w", method, c.url, err)
	case err != nil:
		return nil, fmt.Errorf("%s: node at %s: %w", method, c.url, err)
	}
	if err := check(status, answer); err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	return answer, nil
}

// check returns the fault of an answer, if it has one.
func (c *Client) check(status int, answer []byte) error {
	if status == http.StatusOK && !gjson.ValidBytes(answer) { // an empty answer is not valid either
		return c.strange(status, answer)
	}
	return c.inspect(status, answer)
}

// maxRefusal is more than a refusal is long, in bytes: it has no result.
const maxRefusal = 64 << 10

// glance is check for megabytes: whether they are valid JSON, and a result, is left to whoever reads them.
func (c *Client) glance(status int, answer []byte) error {
	if status == http.StatusOK && len(answer) > maxRefusal {
		return nil
	}
	return c.inspect(status, answer)
}

// inspect is check for what is valid JSON.
func (c *Client) inspect(status int, answer []byte) error {
	switch status {
	case http.StatusUnauthorized:
		keys := "rpc_user and rpc_password"
		if c.cfg.CookieFile != "" {
			keys = "rpc_cookie_file"
		}
		return fmt.Errorf("the node at %s refuses the login: check %s", c.url, keys)
	case http.StatusForbidden:
		return fmt.Errorf("the node at %s refuses this host: check the node's rpcallowip and rpcwhitelist", c.url)
	case http.StatusServiceUnavailable:
		if len(bytes.TrimSpace(answer)) == 0 { // an overloaded one says so
			return fmt.Errorf("the node at %s is stopping (HTTP 503)", c.url)
		}
		return fmt.Errorf("the node at %s is overloaded (%s): check the node's rpcworkqueue and rpcthreads", c.url, excerpt(answer))
	}
	if status != http.StatusOK && !gjson.ValidBytes(answer) {
		return c.strange(status, answer)
	}
	var refusal, result gjson.Result
	gjson.ParseBytes(answer).ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "error":
			refusal = value
		case "result":
			result = value
		}
		return true
	})
	if refusal.Exists() && refusal.Type != gjson.Null {
		e := new(Error)
		if err := json.Unmarshal([]byte(refusal.Raw), e); err != nil {
			return fmt.Errorf("the node at %s answers with an error of unknown form: %s", c.url, excerpt([]byte(refusal.Raw)))
		}
		return e
	}
	if status != http.StatusOK || !result.Exists() {
		return c.strange(status, answer)
	}
	return nil
}

func (c *Client) strange(status int, answer []byte) error {
	return fmt.Errorf("%s does not answer like a node (HTTP %d, %q): check rpc_url", c.url, status, excerpt(answer))
}

// exchange posts request. A login that came from a file is read again when the node refuses it: Bitcoin Core writes a
// new cookie at each start.
func (c *Client) exchange(ctx context.Context, request []byte, arrived func([]byte)) (status int, answer []byte, err error) {
	auth, err := c.login(nil)
	if err != nil {
		return 0, nil, err
	}
	status, answer, err = c.post(ctx, auth, request, arrived)
	if err != nil || status != http.StatusUnauthorized {
		return status, answer, err
	}
	again, err := c.login(auth)
	if err != nil || *again == *auth {
		return status, answer, err
	}
	return c.post(ctx, again, request, arrived)
}

func (c *Client) post(ctx context.Context, auth *login, request []byte, arrived func([]byte)) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(request))
	if err != nil {
		return 0, nil, err
	}
	req.SetBasicAuth(auth.user, auth.password)
	req.Header["Content-Type"] = []string{"application/json"}
	// Not sent: lets the transport repeat the request when the node has just closed the idle connection. All our calls
	// may be repeated.
	req.Header["Idempotency-Key"] = nil

	resp, err := c.http.Do(req)
	if err != nil {
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err // without the method and the URL, which our callers add
		}
		return 0, nil, err
	}
	defer resp.Body.Close()

	if resp.StatusCode != http.StatusOK {
		arrived = nil
	}
	answer, err = readAnswer(resp, arrived)
	return resp.StatusCode, answer, err
}

// readAnswer returns the body of resp.
func readAnswer(resp *http.Response, arrived func(soFar []byte)) ([]byte, error) {
	size := 0
	if n := resp.ContentLength; n > 0 && n <= maxAnswer {
		size = int(n)
	}
	body := make([]byte, 0, size+bytes.MinRead)
	for {
		body = slices.Grow(body, bytes.MinRead)
		n, err := resp.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case len(body) > maxAnswer:
			return nil, fmt.Errorf("answer is larger than %d bytes", maxAnswer)
		case n > 0 && arrived != nil:
			arrived(body)
		}
		if errors.Is(err, io.EOF) {
			return body, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// login returns the login to use, read anew if the one in use is refused.
func (c *Client) login(refused *login) (*login, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.auth != nil && c.auth != refused {
		return c.auth, nil
	}
	auth, err := c.readLogin()
	if err != nil {
		return nil, err
	}
	c.auth = auth
	return auth, nil
}

func (c *Client) readLogin() (*login, error) {
	if c.cfg.CookieFile == "" {
		password, err := c.cfg.password().Read()
		return &login{c.cfg.User, password}, err
	}
	line, err := config.Secret{Key: "rpc_cookie", File: c.cfg.CookieFile}.Read()
	if err != nil {
		return nil, fmt.Errorf("%w: is the node running, and may this user read its cookie?", err)
	}
	user, password, ok := strings.Cut(line, ":")
	if !ok {
		return nil, fmt.Errorf("rpc_cookie_file = %q: holds no user:password", c.cfg.CookieFile)
	}
	return &login{user, password}, nil
}

// excerpt returns the start of b for an error text.
func excerpt(b []byte) []byte {
	const limit = 120
	b = bytes.TrimSpace(b)
	return b[:min(len(b), limit)]
}
