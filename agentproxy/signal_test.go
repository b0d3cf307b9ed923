//go:build !windows

package agentproxy

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"btcpool/internal/testkit"
)

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) holds(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.b.String(), text)
}

// BTCAgent's file is read again, too.
func TestReloadOfBTCAgentsFile(t *testing.T) {
	p := newFakePool(t)
	host, port, _ := net.SplitHostPort(p.addr())
	path := filepath.Join(t.TempDir(), "agent_conf.json")
	write := func(account, extra string) {
		t.Helper()
		text := fmt.Sprintf(`{"agent_listen_ip": "127.0.0.1", "agent_listen_port": 0, "pools": [["%s", %s, "%s"]]%s,
			"advanced": {"pool_connection_number_per_subaccount": 1}}`, host, port, account, extra)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one", "")
	t.Setenv("BTCPOOL_AGENTPROXY_PAGE", "127.0.0.1:0")
	var log syncBuffer
	done := make(chan int)
	go func() { done <- Main([]string{"-c", path}, &log) }()
	p.login()
	signal := func(sig syscall.Signal, want string) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, want, func() bool { return log.holds(want) })
	}
	write("two", `, "agent_type": "eth"`)
	signal(syscall.SIGHUP, "only btc is served")
	write("two", `, "multi_user_mode": true, "colour": "red"`)
	signal(syscall.SIGHUP, `"changed":["pools"]`)
	for _, want := range []string{`"keys":["multi_user"]`, "agent_conf.json: unknown key", `the old one stays`} {
		if !log.holds(want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	p.login()
	signal(syscall.SIGTERM, `"stopped"`)
	if code := <-done; code != 0 {
		t.Errorf("exit code %d", code)
	}
}
