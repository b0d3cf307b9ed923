package noderpc_test

import (
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"btcpool/internal/bitcoin/noderpc"
)

// TestCAFile has a node with a certificate that no system knows, as btcd has.
func TestCAFile(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(answer(200, `{"result":1,"error":null}`))
	defer server.Close()
	server.Config.ErrorLog = nil
	file := filepath.Join(t.TempDir(), "rpc.cert")
	client, err := noderpc.New(noderpc.Config{URL: server.URL, User: "user", Password: "secret", CAFile: file})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	call := func() error { return client.Call(t.Context(), "getblockcount", nil) }
	if err := call(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "rpc_ca_file") {
		t.Errorf("before the node ran: %v", err)
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("no certificate"))
	if err := call(); err == nil || !strings.Contains(err.Error(), "holds no PEM certificate") {
		t.Errorf("no certificate in the file: %v", err)
	}
	write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	if err := call(); err != nil {
		t.Error(err)
	}

	system, err := noderpc.New(noderpc.Config{URL: server.URL, User: "user", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer system.Close()
	if err := system.Call(t.Context(), "getblockcount", nil); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without the file: %v", err)
	}
}
