package sserver_test

import (
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/service"
	"btcpool/internal/store"
	"btcpool/sserver"
)

// loginCode returns the error code of a login, 0 when it succeeds.
func loginCode(p *pool, name string) int {
	p.tb.Helper()
	c := p.dial()
	defer c.conn.Close()
	c.mustCall(nil, "mining.subscribe")
	m := c.call("mining.authorize", name, "x")
	if m.Error != nil {
		return int(m.Error[0].(float64))
	}
	return 0
}

func openConfig(t *testing.T) sserver.Config {
	cfg := testConfig(t)
	cfg.Users.Source = sserver.OpenUsers
	cfg.Users.LoginDeadline = 1e9
	cfg.Database.DSN = "sqlite:" + filepath.Join(t.TempDir(), "pool.db")
	return cfg
}

func TestOpenUsers(t *testing.T) {
	t.Parallel()
	cfg := openConfig(t)
	p := startPool(t, cfg)
	eventually(t, "login", func() bool { return loginCode(p, "Bob.rig") == 0 })
	if code := loginCode(p, "bob.other"); code != 0 {
		t.Errorf("code %d", code)
	}
	if code := loginCode(p, "carol"); code != 0 {
		t.Errorf("code %d", code)
	}
	p.stop()

	db, err := store.Open(t.Context(), cfg.Database.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	users, err := db.Users(t.Context())
	if err != nil || len(users) != 2 || users["bob"] == 0 || users["carol"] == 0 {
		t.Fatalf("users %v, %v", users, err)
	}

	// The same names without the database.
	cfg.Database.DSN = "mysql://nobody:x@tcp(127.0.0.1:1)/none"
	p = startPool(t, cfg)
	if code := loginCode(p, "BOB.rig"); code != 0 {
		t.Errorf("known user: code %d", code)
	}
	if code := loginCode(p, "dave.rig"); code != 30 {
		t.Errorf("unknown user: code %d", code)
	}
	if got := p.metric("logins_refused_total", "unavailable"); got != 1 {
		t.Errorf("%v logins refused", got)
	}
}

// A login that waits for the database waits alone.
func TestSlowDatabase(t *testing.T) {
	t.Parallel()
	cfg := openConfig(t)
	p := startPool(t, cfg)
	eventually(t, "login", func() bool { return loginCode(p, "bob") == 0 })

	db, err := sql.Open("sqlite", strings.TrimPrefix(cfg.Database.DSN, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	waiting := p.dial()
	waiting.mustCall(nil, "mining.subscribe")
	start := time.Now()
	waiting.request("mining.authorize", "carol", "x")
	if code := loginCode(p, "bob.other"); code != 0 {
		t.Errorf("known user: code %d", code)
	}
	if waited := time.Since(start); waited > 900*time.Millisecond {
		t.Errorf("known user waited %s", waited)
	}
	if m := waiting.read(); m.Error == nil || m.Error[0] != 30.0 {
		t.Errorf("new user: %+v", m)
	}
	if waited := time.Since(start); waited > 5*time.Second {
		t.Errorf("new user waited %s", waited)
	}
}

func TestAPIUsers(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	users := []string{"one", "Two", "three"} // ids 1, 2, 3; one a page
	var asked []string
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var last int
		_, _ = fmt.Sscan(r.URL.Query().Get("last_id"), &last)
		asked = append(asked, r.URL.String())
		if last >= len(users) {
			_, _ = w.Write([]byte(`{"err_no":0,"err_msg":null,"data":{}}`))
			return
		}
		fmt.Fprintf(w, `{"err_no":0,"err_msg":null,"data":{"%s":%d,"zero":0}}`, users[last], last+1)
	}))
	defer api.Close()
	cfg := testConfig(t)
	cfg.Users.Source = sserver.APIUsers
	cfg.Users.ListURL = api.URL + "/users?key=1"
	cfg.Users.ListInterval = 1e9
	p := startPool(t, cfg)
	eventually(t, "all pages", func() bool { return loginCode(p, "three.x") == 0 })
	for name, want := range map[string]int{"one": 0, "two": 0, "zero": 29, "four": 29} {
		if code := loginCode(p, name); code != want {
			t.Errorf("%s: code %d, want %d", name, code, want)
		}
	}
	mu.Lock()
	users = append(users, "four")
	if asked[0] != "/users?key=1&last_id=0" || asked[1] != "/users?key=1&last_id=1" {
		t.Errorf("asked %v", asked)
	}
	mu.Unlock()
	eventually(t, "a new user", func() bool { return loginCode(p, "four") == 0 })
	p.stop()

	api.Close()
	p = startPool(t, cfg)
	if code := loginCode(p, "two"); code != 0 {
		t.Errorf("with the API away: code %d", code)
	}
}

func TestDamagedSnapshot(t *testing.T) {
	t.Parallel()
	cfg := openConfig(t)
	if err := os.WriteFile(filepath.Join(cfg.DataDir, "users.json"), []byte("{\"a\":"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := sserver.New(cfg, service.Deps{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
