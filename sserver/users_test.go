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

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
	"btcpool/internal/users"
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
	cfg.Users.Kind = users.Open
	cfg.Users.LoginDeadline = 1e9
	cfg.Database.DSN = "sqlite:" + filepath.Join(t.TempDir(), "pool.db")
	return cfg
}

func TestOpenUsers(t *testing.T) {
	t.Parallel()
	cfg := openConfig(t)
	p := startPool(t, cfg)
	testkit.Eventually(t, "login", func() bool { return loginCode(p, "Bob.rig") == 0 })
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
	if got := p.metric("logins_refused_total", "reason", "unavailable"); got != 1 {
		t.Errorf("%v logins refused", got)
	}
}

// A login that waits for the database waits alone, and not for ever.
func TestSlowDatabase(t *testing.T) {
	t.Parallel()
	cfg := openConfig(t)
	hasty := startPool(t, cfg)
	cfg.DataDir, cfg.Users.LoginDeadline = t.TempDir(), config.Duration(testkit.Patience)
	p := startPool(t, cfg)
	for _, p := range []*pool{hasty, p} {
		testkit.Eventually(t, "login", func() bool { return loginCode(p, "bob") == 0 })
	}

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
	waiting.request("mining.authorize", "carol", "x")
	if code := loginCode(p, "bob.other"); code != 0 {
		t.Errorf("known user: code %d", code)
	}
	if code := loginCode(hasty, "carol"); code != 30 {
		t.Errorf("new user, when the deadline is over: code %d", code)
	}
	if _, err := conn.ExecContext(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if m := waiting.read(); m.Error != nil {
		t.Errorf("new user, when the database answers: %+v", m)
	}
}

func TestAPIUsers(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	known := []string{"one", "Two", "three"} // ids 1, 2, 3; one a page
	var asked []string
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var last int
		_, _ = fmt.Sscan(r.URL.Query().Get("last_id"), &last)
		asked = append(asked, r.URL.String())
		if last >= len(known) {
			_, _ = w.Write([]byte(`{"err_no":0,"err_msg":null,"data":{}}`))
			return
		}
		fmt.Fprintf(w, `{"err_no":0,"err_msg":null,"data":{"%s":%d,"zero":0}}`, known[last], last+1)
	}))
	defer api.Close()
	cfg := testConfig(t)
	cfg.Users.Kind = users.API
	cfg.Users.ListURL = api.URL + "/users?key=1"
	cfg.Users.ListInterval = 1e9
	p := startPool(t, cfg)
	testkit.Eventually(t, "all pages", func() bool { return loginCode(p, "three.x") == 0 })
	for name, want := range map[string]int{"one": 0, "two": 0, "zero": 29, "four": 29} {
		if code := loginCode(p, name); code != want {
			t.Errorf("%s: code %d, want %d", name, code, want)
		}
	}
	mu.Lock()
	known = append(known, "four")
	if asked[0] != "/users?key=1&last_id=0" || asked[1] != "/users?key=1&last_id=1" {
		t.Errorf("asked %v", asked)
	}
	mu.Unlock()
	testkit.Eventually(t, "a new user", func() bool { return loginCode(p, "four") == 0 })
	p.stop()

	api.Close()
	p = startPool(t, cfg)
	if code := loginCode(p, "two"); code != 0 {
		t.Errorf("with the API away: code %d", code)
	}
}

func TestUsersValidate(t *testing.T) {
	t.Parallel()
	own := func(s users.Source) func(*sserver.Config) {
		return func(c *sserver.Config) {
			c.Listeners = []sserver.Listener{{Listen: "127.0.0.1:0"}, {Listen: "127.0.0.1:0", Users: &s}}
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*sserver.Config)
		want   string // part of the error; "": valid
	}{
		{"defaults", func(*sserver.Config) {}, ""},
		{"general", func(c *sserver.Config) { c.Users.Kind = "friends" }, `users.source = "friends": must be`},
		{"own source", own(users.Source{Kind: "api", ListURL: "http://a/"}), ""},
		{"own URL", own(users.Source{Kind: "api", ListURL: "a"}), "listeners[1].users.list_id_api_url"},
		{"none of its own", own(users.Source{ListURL: "http://a/"}), "listeners[1].users.source"},
		{"own addresses", func(c *sserver.Config) {
			own(users.Source{Kind: "address"})(c)
			c.Users.Network = "moon"
		}, "users.network"},
		{"database for a listener", func(c *sserver.Config) {
			own(users.Source{Kind: "database"})(c)
			c.Users.Kind, c.Users.Static, c.Database.DSN = "static", map[string]int32{"a": 1}, "postgres://"
		}, "database.dsn"},
		{"database by a file", func(c *sserver.Config) { c.Database.DSNFile = "/run/secrets/dsn" }, ""},
		{"no database", func(c *sserver.Config) {
			c.Users.Kind, c.Users.Static, c.Database.DSN = "static", map[string]int32{"a": 1}, "postgres://"
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := sserver.DefaultConfig()
			tt.change(&cfg)
			err := cfg.Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestUsersOfListeners(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "sserver.toml")
	text := `
[[listeners]]
listen = "127.0.0.1:1"
[listeners.users]
source = "static"
static = { bob = 2 }

[[listeners]]
listen = "127.0.0.1:2"

[users]
source = "address"
network = "signet"
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := sserver.DefaultConfig()
	if err := service.Load(file, &cfg); err != nil {
		t.Fatal(err)
	}
	want := []sserver.Listener{
		{Listen: "127.0.0.1:1", Users: &users.Source{Kind: "static", Static: map[string]int32{"bob": 2}}},
		{Listen: "127.0.0.1:2"},
	}
	if diff := cmp.Diff(want, cfg.Listeners); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if cfg.Users.Kind != "address" || cfg.Users.Network != "signet" || cfg.Users.ListInterval == 0 {
		t.Errorf("users %+v", cfg.Users)
	}
}

// Each listener has its own users; an address is one as it is written.
func TestListenersWithUsers(t *testing.T) {
	t.Parallel()
	const address = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"
	cfg := openConfig(t)
	cfg.Users.Kind = users.Address
	cfg.Listeners = []sserver.Listener{{
		Listen: "127.0.0.1:0",
		Users:  &users.Source{Kind: users.Static, Static: map[string]int32{"Alice": 7}},
	}}
	p := startPool(t, cfg)
	testkit.Eventually(t, "login", func() bool { return loginCode(p, address+".rig") == 0 })
	for name, want := range map[string]int{strings.ToLower(address) + ".rig": 29, "alice": 29} {
		if code := loginCode(p, name); code != want {
			t.Errorf("%s: code %d, want %d", name, code, want)
		}
	}
	c := p.dialTo(1)
	c.mustCall(nil, "mining.subscribe")
	if m := c.call("mining.authorize", address, "x"); m.Error == nil {
		t.Error("an address is welcome where it is not a user")
	}
	c.mustCall(nil, "mining.authorize", "ALICE.rig", "x")
}

// A user who is removed is sent away with the next request.
func TestRemovedUser(t *testing.T) {
	t.Parallel()
	cfg := openConfig(t)
	cfg.Users.Kind = users.Database
	cfg.Users.ReloadInterval, cfg.Users.ListInterval = 1e9, 1e9
	db, err := store.Open(t.Context(), cfg.Database.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, name := range []string{"bob", "carol"} {
		if _, err := db.UserID(t.Context(), name, true); err != nil {
			t.Fatal(err)
		}
	}
	p := startPool(t, cfg)
	bob, carol := p.dial(), p.dial()
	for c, name := range map[*client]string{bob: "bob.rig", carol: "carol.rig"} {
		c.mustCall(nil, "mining.subscribe")
		c.mustCall(nil, "mining.authorize", name, "x")
	}
	rows, err := sql.Open("sqlite", strings.TrimPrefix(cfg.Database.DSN, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	if _, err := rows.ExecContext(t.Context(), "PRAGMA busy_timeout=10000; DELETE FROM users WHERE name = 'bob'"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "bob is gone", func() bool { return loginCode(p, "bob.rig") == 29 })
	bob.request("mining.ping")
	carol.mustCall(nil, "mining.ping")
	testkit.Eventually(t, "bob is disconnected", func() bool { return p.metric("disconnects_total", "reason", "user") == 1 })
}
