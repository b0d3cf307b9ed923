// Package rskrpc talks to the node of RSK about merged mining: JSON-RPC 2.0 over HTTP, mostly without a login. Every
// call has a deadline and a bound on the size of its answer.
package rskrpc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/auxpow"
	"btcpool/internal/auxwork"
	"btcpool/internal/bitcoin"
	"btcpool/internal/config"
)

const (
	defaultTimeout = 10 * time.Second
	maxAnswer      = 1 << 20 // bytes
)

// Config names a node.
type Config struct {
	// URL is http://host:port or https://host:port.
	URL string `toml:"rpc_url" env:"RPC_URL"`
	// User logs in with the password, which is a value or the first line of a file.
	// Empty: without a login.
	User         string `toml:"rpc_user" env:"RPC_USER"`
	Password     string `toml:"rpc_password" env:"RPC_PASSWORD"`
	PasswordFile string `toml:"rpc_password_file" env:"RPC_PASSWORD_FILE"`
	// Timeout bounds one call; 0: 10 s.
	Timeout config.Duration `toml:"timeout" env:"RPC_TIMEOUT"`
}

func (c Config) password() config.Secret {
	return config.Secret{Key: "rpc_password", Value: c.Password, File: c.PasswordFile}
}

// Validate reports every fault of c at once.
func (c Config) Validate() error {
	var faults config.Faults
	switch u, err := url.Parse(c.URL); {
	case err != nil: // url.Parse repeats what it was given, and that may hold a password
		faults.Addf("rpc_url: is not a URL; it must be like http://127.0.0.1:4444")
	case u.User != nil:
		faults.Addf("rpc_url = %q: must not hold a login; use rpc_user and rpc_password", config.RedactURL(c.URL))
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		faults.Addf("rpc_url = %q: must be like http://127.0.0.1:4444", config.RedactURL(c.URL))
	}
	faults.Add(c.password().Validate())
	if c.User == "" && !c.password().IsZero() {
		faults.Addf("rpc_user: is empty beside a password")
	}
	faults.AtLeast("timeout", c.Timeout, 0)
	return faults.Err()
}

// Client calls one node. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Client
}

// New returns a client of the node that cfg names. It does not call the node.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	var err error
	if cfg.Password, err = cfg.password().Read(); err != nil {
		return nil, err
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, config.Duration(defaultTimeout))
	return &Client{cfg, &http.Client{
		Transport:     &http.Transport{IdleConnTimeout: 20 * time.Second, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close ends the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Work is what mnr_getWork answers.
type Work struct {
	Target          auxwork.RSKHash
	ParentBlockHash auxwork.RSKHash
	BlockHash       auxwork.RSKHash // the one for merged mining
	FeesForMiner    string
	Notify          bool // the miners should be told; the node says so once
}

// Work returns the block to mine.
func (c *Client) Work(ctx context.Context) (Work, error) {
	var result struct {
		Target          *auxwork.RSKHash `json:"target"`
		ParentBlockHash *auxwork.RSKHash `json:"parentBlockHash"`
		BlockHash       *auxwork.RSKHash `json:"blockHashForMergedMining"`
		FeesForMiner    *string          `json:"feesPaidToMiner"`
		Notify          *bool            `json:"notify"`
	}
	const method = "mnr_getWork"
	answer, err := c.call(ctx, method)
	if err == nil {
		err = json.Unmarshal(answer, &result)
	}
	if err != nil {
		return Work{}, fmt.Errorf("%s: %w", method, err)
	}
	if result.Target == nil || result.ParentBlockHash == nil || result.BlockHash == nil || result.FeesForMiner == nil || result.Notify == nil {
		return Work{}, fmt.Errorf("%s: target, parentBlockHash, blockHashForMergedMining, feesPaidToMiner or notify is missing", method)
	}
	return Work{*result.Target, *result.ParentBlockHash, *result.BlockHash, *result.FeesForMiner, *result.Notify}, nil
}

// Submit gives a parent block of so many transactions to the node, which looks in its coinbase for the block that it
// solves. It returns the node's words; an
// *Error is a refusal.
func (c *Client) Submit(ctx context.Context, parent *auxpow.Parent, transactions int) (string, error) {
	const method = "mnr_submitBitcoinBlockPartialMerkle"
	id := chainhash.Hash(bitcoin.DoubleSHA256(parent.Coinbase))
	hashes := []string{hex.EncodeToString(id[:])}
	for _, hash := range parent.Branch {
		hashes = append(hashes, hex.EncodeToString(hash[:]))
	}
	answer, err := c.call(ctx, method,
		parent.Hash().String(),
		hex.EncodeToString(parent.Header[:]),
		hex.EncodeToString(parent.Coinbase),
		strings.Join(hashes, " "),
		strconv.FormatInt(int64(transactions), 16))
	if err != nil {
		return "", fmt.Errorf("%s: %w", method, err)
	}
	return string(answer), nil
}

// Place says where the node has a block.
type Place struct {
	Height        int64
	Confirmations int64 // 1 for the newest block, 0 for one that is not on the best chain
}

// ErrUnknownBlock is returned for a block that the node has never seen.
var ErrUnknownBlock = errors.New("block is unknown to the node")

// Block returns where the node has the block with this hash of RSK's own, as the answer to Submit names it.
func (c *Client) Block(ctx context.Context, hash string) (Place, error) {
	own, err := c.header(ctx, "eth_getBlockByHash", hash)
	if err != nil {
		return Place{}, err
	}
	height, err := parseQuantity(own.Number)
	if err != nil {
		return Place{}, fmt.Errorf("eth_getBlockByHash: %w", err)
	}
	best, err := c.header(ctx, "eth_getBlockByNumber", own.Number)
	if err != nil && !errors.Is(err, ErrUnknownBlock) { // the chain may be shorter now
		return Place{}, err
	}
	if err != nil || !strings.EqualFold(best.Hash, own.Hash) {
		return Place{Height: height}, nil
	}
	tip, err := c.header(ctx, "eth_getBlockByNumber", "latest")
	if err != nil {
		return Place{}, err
	}
	top, err := parseQuantity(tip.Number)
	if err != nil {
		return Place{}, fmt.Errorf("eth_getBlockByNumber: %w", err)
	}
	return Place{height, max(1, top-height+1)}, nil
}

// header is what is needed of a block.
type header struct {
	Hash   string `json:"hash"`
	Number string `json:"number"` // "0x" and hex digits
}

func (c *Client) header(ctx context.Context, method, block string) (h header, err error) {
	answer, err := c.call(ctx, method, block, false)
	if errors.Is(err, errNoResult) {
		err = ErrUnknownBlock
	}
	if err == nil {
		err = json.Unmarshal(answer, &h)
	}
	if err != nil {
		return header{}, fmt.Errorf("%s: %w", method, err)
	}
	return h, nil
}

func parseQuantity(text string) (int64, error) {
	digits, ok := strings.CutPrefix(text, "0x")
	n, err := strconv.ParseInt(digits, 16, 63)
	if !ok || err != nil || n < 0 {
		return 0, fmt.Errorf("number %.80q is not 0x and hex digits", text)
	}
	return n, nil
}

// Error is the node's refusal of a call, unlike an answer that never came.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return fmt.Sprintf("node error %d: %s", e.Code, e.Message) }

var errNoResult = errors.New("the node answers without result")

// call returns the result of method, an *Error if the node refuses.
func (c *Client) call(ctx context.Context, method string, params ...any) (json.RawMessage, error) {
	if params == nil {
		params = []any{}
	}
	request, err := json.Marshal(struct {
		JSONRPC string `json:"jsonrpc"`
		ID      int    `json:"id"`
		Method  string `json:"method"`
		Params  []any  `json:"params"`
	}{"2.0", 1, method, params})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout.Std())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.URL, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.cfg.User != "" {
		req.SetBasicAuth(c.cfg.User, c.cfg.Password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err // names the method and the URL
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Result json.RawMessage `json:"result"`
		Error  *Error          `json:"error"`
	}
	switch err := json.Unmarshal(text, &answer); {
	case len(text) > maxAnswer:
		return nil, fmt.Errorf("answer of the node at %s is larger than %d bytes", c.cfg.URL, maxAnswer)
	case err != nil:
		return nil, fmt.Errorf("%s does not answer like a node (HTTP %d, %.120q): check rpc_url", c.cfg.URL, resp.StatusCode, text)
	case answer.Error != nil:
		return nil, answer.Error
	case answer.Result == nil || string(answer.Result) == "null":
		return nil, fmt.Errorf("%w (%s, HTTP %d)", errNoResult, c.cfg.URL, resp.StatusCode)
	}
	return answer.Result, nil
}
