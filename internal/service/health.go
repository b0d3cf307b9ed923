package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

const (
	// healthTimeout is how long a service may take to say how it is.
	healthTimeout = 5 * time.Second
	// maxMetrics bounds what is read of a service's metrics.
	maxMetrics = 16 << 20
)

// Health asks the service that has the admin address whether it is ready: nil, or what is missing.
func Health(ctx context.Context, admin string) error {
	status, text, err := askAdmin(ctx, admin, "/readyz", 64<<10)
	if err == nil && status != http.StatusOK {
		return errors.New(strings.TrimSpace(text))
	}
	return err
}

var builtAs = regexp.MustCompile(`(?m)^btcpool_build_info\{[^}]*version="([^"]*)"`)

// VersionAt asks the service that has the admin address for its version; "" is not known.
func VersionAt(ctx context.Context, admin string) string {
	_, text, err := askAdmin(ctx, admin, "/metrics", maxMetrics)
	if found := builtAs.FindStringSubmatch(text); err == nil && found != nil {
		return found[1]
	}
	return ""
}

func askAdmin(ctx context.Context, admin, path string, most int64) (status int, text string, err error) {
	host, port, err := net.SplitHostPort(admin)
	switch {
	case admin == "":
		return 0, "", errors.New("admin: is empty, so that nobody can be asked")
	case err != nil:
		return 0, "", err
	case port == "0":
		return 0, "", errors.New("admin: has port 0, so that nobody knows where to ask")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy
	answer, err := client.Do(request)
	if called, ok := errors.AsType[*url.Error](err); ok {
		err = called.Err
	}
	if err != nil {
		return 0, "", fmt.Errorf("not running: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, most))
	return answer.StatusCode, string(body), err
}
