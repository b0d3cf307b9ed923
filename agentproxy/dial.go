package agentproxy

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/proxy"

	"btcpool/internal/stratum"
)

// dialer reaches pools: directly, or by the fastest of several proxies.
type dialer struct {
	cfg     Proxy
	timeout time.Duration
	agents  *sync.Map // addresses of pools that have spoken the agents' protocol: what they did once they can
}

func newDialer(cfg Config) *dialer {
	return &dialer{cfg: cfg.Proxy, timeout: cfg.DialTimeout.Std(), agents: new(sync.Map)}
}

// known returns the pools that have spoken the agents' protocol.
func (d *dialer) known() (agents []string) {
	for addr := range d.agents.Range {
		agents = append(agents, addr.(string))
	}
	return agents
}

func (d *dialer) learn(agents []string) {
	for _, addr := range agents {
		d.agents.Store(addr, true)
	}
}

// upstream is a connection to a pool, which has shown that it answers.
type upstream struct {
	net.Conn
	agent bool   // the pool speaks the agents' protocol
	via   string // the proxy, without its password; "": none
}

// way is how a pool can be reached: by a proxy, or, without one, directly.
type way struct{ proxy *url.URL }

func (w way) String() string {
	if w.proxy == nil {
		return ""
	}
	return w.proxy.Redacted()
}

// ways returns how pools are tried to be reached at once, and then, if all of that fails.
func (d *dialer) ways() (first, then []way) {
	for _, text := range d.cfg.URLs {
		u, _ := parseProxy(text) // was validated
		if u == nil {
			if u = fromEnvironment(); u == nil {
				continue
			}
		}
		first = append(first, way{u})
	}
	switch {
	case len(first) == 0 || d.cfg.Direct == DirectWith:
		return append(first, way{}), nil
	case d.cfg.Direct == DirectAfter:
		return first, []way{{}}
	}
	return first, nil
}

// fromEnvironment returns the proxy that the environment names for everything, by BTCAgent's order.
func fromEnvironment() *url.URL {
	for _, name := range []string{"ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		if text := os.Getenv(name); text != "" {
			u, err := parseProxy(text)
			if err == nil {
				return u
			}
		}
	}
	return nil
}

// errSilent means that a pool does not answer what an agent asks.
var errSilent = errors.New("no answer to agent.get_capabilities")

// dial returns a connection to p, whatever way is the fastest, or why there is none. A pool that does not take an
// agent's question is asked for nothing the second time.
func (d *dialer) dial(ctx context.Context, p Pool) (upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	first, then := d.ways()
	up, err := d.race(ctx, p, first, p.Protocol != ProtocolStratum)
	if err != nil && len(then) > 0 {
		up, err = d.race(ctx, p, then, p.Protocol != ProtocolStratum)
	}
	if _, known := d.agents.Load(p.Addr); errors.Is(err, errSilent) && p.Protocol != ProtocolAgent && !known {
		up, err = d.race(ctx, p, append(first, then...), false)
	}
	if err != nil {
		return upstream{}, err
	}
	if !up.agent && p.Protocol == ProtocolAgent {
		_ = up.Close()
		return upstream{}, errSilent
	}
	if up.agent {
		d.agents.Store(p.Addr, true)
	}
	return up, nil
}

// race tries all ways at once and returns the first connection.
func (d *dialer) race(ctx context.Context, p Pool, ways []way, ask bool) (upstream, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		up  upstream
		err error
	}
	outcomes := make(chan outcome)
	for _, w := range ways {
		go func() {
			up, err := d.try(ctx, p, w, ask)
			select {
			case outcomes <- outcome{up, err}:
			case <-ctx.Done():
				if err == nil {
					_ = up.Close()
				}
			}
		}()
	}
	var errs []error
	for range ways {
		select {
		case o := <-outcomes:
			if o.err == nil {
				return o.up, nil
			}
			errs = append(errs, o.err)
		case <-ctx.Done():
			return upstream{}, errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
	return upstream{}, errors.Join(errs...)
}

// try reaches p by one way, and asks it what it can if it is to be asked.
func (d *dialer) try(ctx context.Context, p Pool, w way, ask bool) (up upstream, err error) {
	conn, err := d.connect(ctx, p.Addr, w.proxy)
	if err != nil {
		if w.proxy != nil {
			err = fmt.Errorf("by %s: %w", w, err)
		}
		return upstream{}, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	if p.TLS {
		host, _, _ := net.SplitHostPort(p.Addr)
		conn, err = handshake(ctx, conn, host, p.TLSSkipVerify)
		if err != nil {
			return upstream{}, err
		}
	}
	if !ask {
		return upstream{conn, false, w.String()}, nil
	}
	// Half of the time is left for a pool that has to be reached again without a question.
	wait := d.timeout / 2
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return upstream{}, err
	}
	if _, err := conn.Write(probe); err != nil {
		return upstream{}, err
	}
	lines := bufio.NewReaderSize(conn, stratum.MaxLine)
	line, err := lines.ReadSlice('\n')
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return upstream{}, errSilent
	case err != nil: // it may be starting, so nothing is concluded from that
		return upstream{}, fmt.Errorf("the pool ends the connection (%w): if it always does, set protocol = \"stratum\"", err)
	}
	answer, err := stratum.ParseMessage(line)
	agent := err == nil && answer.Error == nil && strings.Contains(string(answer.Result), `"capabilities"`)
	if n := lines.Buffered(); n > 0 {
		return upstream{}, fmt.Errorf("%d bytes that were not asked for", n)
	}
	return upstream{conn, agent, w.String()}, conn.SetDeadline(time.Time{})
}

// probe is BTCAgent's first question, by which it knows that a pool can be reached at all.
var probe = []byte(`{"id":"conn_test","method":"agent.get_capabilities","params":[["verrol"]]}` + "\n")

func handshake(ctx context.Context, conn net.Conn, host string, skipVerify bool) (net.Conn, error) {
	client := tls.Client(conn, &tls.Config{
		ServerName:         host,
		InsecureSkipVerify: skipVerify, //nolint:gosec // the operator says so
		MinVersion:         tls.VersionTLS12,
	})
	if err := client.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return conn, fmt.Errorf("TLS: %w", err)
	}
	return client, nil
}

// connect opens a connection to addr, through a proxy if there is one. Names are for the proxy to look up.
func (d *dialer) connect(ctx context.Context, addr string, by *url.URL) (net.Conn, error) {
	var direct net.Dialer
	if by == nil {
		return direct.DialContext(ctx, "tcp", addr)
	}
	if by.Scheme == "socks5" || by.Scheme == "socks5h" {
		return throughSOCKS(ctx, &direct, addr, by)
	}
	port := cmp.Or(by.Port(), map[string]string{"http": "80", "https": "443"}[by.Scheme])
	conn, err := direct.DialContext(ctx, "tcp", net.JoinHostPort(by.Hostname(), port))
	if err != nil {
		return nil, err
	}
	if by.Scheme == "https" {
		if conn, err = handshake(ctx, conn, by.Hostname(), d.cfg.TLSSkipVerify); err != nil {
			return nil, err
		}
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := tunnel(conn, addr, by.User); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// throughSOCKS returns the very connection to the proxy, which a loop can poll, once that leads to addr.
func throughSOCKS(ctx context.Context, direct *net.Dialer, addr string, by *url.URL) (net.Conn, error) {
	dialer, err := proxy.FromURL(by, direct)
	if err != nil {
		return nil, err
	}
	socks, ok := dialer.(interface {
		DialWithConn(ctx context.Context, conn net.Conn, network, addr string) (net.Addr, error)
	})
	if !ok {
		return nil, errors.ErrUnsupported
	}
	conn, err := direct.DialContext(ctx, "tcp", by.Host)
	if err != nil {
		return nil, err
	}
	if _, err := socks.DialWithConn(ctx, conn, "tcp", addr); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// tunnel asks an HTTP proxy for a connection to addr (RFC 9110, CONNECT).
func tunnel(conn net.Conn, addr string, user *url.Userinfo) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: make(http.Header)}
	if password, ok := user.Password(); ok {
		login := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		req.Header.Set("Proxy-Authorization", "Basic "+login)
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, req)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	switch {
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("the proxy says %s", res.Status)
	case r.Buffered() > 0:
		return errors.New("the proxy says more than was asked for")
	}
	return nil
}
