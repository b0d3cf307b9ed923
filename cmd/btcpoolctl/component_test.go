package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"

	"btcpool/internal/bus"
	"btcpool/internal/bus/embedded"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
)

// run has the tool do something and returns what it says, and how it ends.
func run(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	var said, errs strings.Builder
	code = do(args, &said, &errs)
	return said.String() + errs.String(), code
}

func wants(t *testing.T, code int, out string, args ...string) {
	t.Helper()
	got, is := run(t, args...)
	if is != code || !strings.Contains(got, out) {
		t.Errorf("btcpoolctl %s: code %d, want %d with %q:\n%s", strings.Join(args, " "), is, code, out, got)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	dir := samples(t, nil)
	wants(t, 0, "configurations are right, and fit together", "-C", dir, "check")
	wants(t, 0, "Available Commands", "--help")
	wants(t, 0, "btcpoolctl version", "--version")
	wants(t, 0, "__start_btcpoolctl", "completion", "bash")
	wants(t, 2, "unknown flag: --nonsense", "check", "--nonsense")
	wants(t, 2, "accepts 0 arg", "check", "more")
	wants(t, 2, "say what", "sessions")
	wants(t, 2, "hex digits", "-C", dir, "follow", "share", "--nonce", "xyz")
	wants(t, 2, "server-epoch-sequence", "-C", dir, "follow", "share", "--id", "1-2")
	wants(t, 1, "no such file or directory", "-C", filepath.Join(dir, "none"), "check")
	wants(t, 1, "there is no file of a service", "-C", t.TempDir(), "check")
	wants(t, 1, "no sserver with an admin API", "-C", dir, "sessions", "list")
	wants(t, 0, "6 configurations are right", "-C", dir, "-x", "statshttpd", "check")

	pages := t.TempDir()
	wants(t, 0, "", "man", pages)
	if _, err := os.Stat(filepath.Join(pages, "btcpoolctl-follow-share.1")); err != nil {
		t.Error(err)
	}
}

// TestServers speaks to an admin API that answers as sserver does.
func TestServers(t *testing.T) {
	t.Parallel()
	const token = "0123456789abcdef0123456789abcdef"
	answers := map[string]string{
		"GET /api/v1/sessions":      `{"total":2,"next":null,"sessions":[{"id":"01000001","state":"authorized","address":"192.0.2.1","listener":"","agent":"cgminer/4","workers":["a.rig"],"difficulty":8192,"fixed":false,"accepted":7,"rejected":1,"connected_at":"","last_share_at":null,"miners":null},{"id":"01000002","state":"connected","address":"192.0.2.2","listener":"","agent":"","workers":[],"difficulty":1,"fixed":false,"accepted":0,"rejected":0,"connected_at":"","last_share_at":null,"miners":12}]}`,
		"POST /api/v1/kick":         `{"sessions":3,"miners":0}`,
		"POST /api/v1/message":      `{"sessions":2,"miners":0}`,
		"POST /api/v1/difficulty":   `{"sessions":1,"miners":0}`,
		"GET /api/v1/bans":          `{"total":1,"bans":[{"prefix":"192.0.2.0/24","until":"2030-01-01T00:00:00Z","reason":"flood"}]}`,
		"POST /api/v1/bans":         `{"prefix":"192.0.2.0/24","until":"2030-01-01T00:00:00Z","reason":"","sessions":4}`,
		"DELETE /api/v1/bans":       `{"lifted":"192.0.2.0/24"}`,
		"GET /api/v1/drain":         `{"state":"none","began_at":null,"grace":null,"reconnect_to":null,"connections":9}`,
		"POST /api/v1/drain":        `{"state":"draining","began_at":"","grace":"10m","reconnect_to":null,"connections":9}`,
		"DELETE /api/v1/drain":      `{"state":"none","began_at":null,"grace":null,"reconnect_to":null,"connections":9}`,
		"POST /api/v1/kick refused": `{"error":{"code":"invalid_request","message":"name some sessions"}}`,
	}
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body json.RawMessage
		_ = json.NewDecoder(r.Body).Decode(&body)
		key := r.Method + " " + r.URL.Path
		asked = append(asked, fmt.Sprintf("%s?%s %s", key, r.URL.RawQuery, body))
		if r.Header.Get("Authorization") != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if string(body) == "{}" {
			w.WriteHeader(http.StatusBadRequest)
			key += " refused"
		}
		_, _ = w.Write([]byte(answers[key]))
	}))
	t.Cleanup(srv.Close)
	api := strings.TrimPrefix(srv.URL, "http://")
	dir := samples(t, nil)
	text, err := os.ReadFile(filepath.Join(dir, "sserver.toml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "sserver", string(text), "ADMIN_API_LISTEN]\nlisten = \"\"", fmt.Sprintf("]\nlisten = %q\ntoken = %q", api, token))

	wants(t, 0, "01000001  192.0.2.1  a.rig      cgminer/4  8192        7         1         -           -", "-C", dir, "sessions", "list", "--user", "a", "--limit", "5")
	wants(t, 0, "sserver: 2 sessions", "-C", dir, "sessions", "list")
	wants(t, 0, "sserver: 3 sessions ended", "-C", dir, "sessions", "kick", "--address", "192.0.2.0/24", "--reconnect")
	wants(t, 1, "sserver: name some sessions", "-C", dir, "sessions", "kick")
	wants(t, 0, "sserver: 2 sessions told", "-C", dir, "sessions", "message", "--all", "back at ten")
	wants(t, 0, "sserver: 1 sessions told", "-C", dir, "sessions", "difficulty", "4096", "--user", "a", "--fixed")
	wants(t, 2, "is no difficulty", "-C", dir, "sessions", "difficulty", "much", "--user", "a")
	wants(t, 0, "192.0.2.0/24  2030-01-01T00:00:00Z  flood", "-C", dir, "bans", "list")
	wants(t, 0, "192.0.2.0/24 is banned until 2030-01-01T00:00:00Z, 4 sessions ended", "-C", dir, "bans", "add", "192.0.2.0/24", "--for", "2h", "--reason", "flood")
	wants(t, 0, "192.0.2.0/24 may connect again", "-C", dir, "bans", "remove", "192.0.2.0/24")
	wants(t, 0, "sserver: draining, 9 connections", "-C", dir, "drain", "start", "--grace", "10m")
	wants(t, 0, "sserver: none, 9 connections", "-C", dir, "drain", "stop")
	wants(t, 0, "sserver: none, 9 connections", "-C", dir, "drain", "status", "--server", "sserver")
	wants(t, 1, "no sserver with an admin API", "-C", dir, "drain", "status", "--server", "sserver-2")
	for i, want := range []string{
		"GET /api/v1/sessions?limit=5&user=a ",
		"GET /api/v1/sessions?limit=100 ",
		`POST /api/v1/kick? {"address":"192.0.2.0/24","reconnect":true}`,
		`POST /api/v1/kick? {}`,
		`POST /api/v1/message? {"all":true,"text":"back at ten"}`,
		`POST /api/v1/difficulty? {"user":"a","difficulty":4096,"fixed":true}`,
		"GET /api/v1/bans?limit=1000 ",
		`POST /api/v1/bans? {"prefix":"192.0.2.0/24","duration":"2h","reason":"flood"}`,
		"DELETE /api/v1/bans?prefix=192.0.2.0%2F24 ",
		`POST /api/v1/drain? {"grace":"10m"}`,
	} {
		if asked[i] != want {
			t.Errorf("request %d was %s, want %s", i, asked[i], want)
		}
	}
}

// node answers as a node that has some blocks.
func node(t *testing.T, confirmations map[string]int) (url string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct {
			ID     any
			Method string
			Params []any
		}
		_ = json.NewDecoder(r.Body).Decode(&call)
		var result, fault any
		switch call.Method {
		case "getblockchaininfo":
			result = map[string]any{"chain": "main", "blocks": 900, "headers": 950, "bestblockhash": strings.Repeat("0", 64)}
		default:
			n, known := confirmations[fmt.Sprint(call.Params[0])]
			if !known {
				fault = map[string]any{"code": -5, "message": "Block not found"}
				w.WriteHeader(http.StatusInternalServerError)
				break
			}
			result = map[string]any{"height": 800, "confirmations": n}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"id": call.ID, "result": result, "error": fault})
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// TestWholePool works on a database, a share log and a broker that are there, and a node.
func TestWholePool(t *testing.T) {
	t.Parallel()
	broker, err := embedded.Start(t.TempDir(), "127.0.0.1:0", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Close() })
	brokers := fmt.Sprintf("brokers = [%q]", broker.Addr())
	data := t.TempDir()
	dsn := "sqlite:" + filepath.Join(data, "pool.db")
	confirmed, gone, unknown := strings.Repeat("0a", 32), strings.Repeat("0b", 32), strings.Repeat("0c", 32)
	url := node(t, map[string]int{confirmed: 3, gone: -1})
	common := []string{
		`brokers = ["127.0.0.1:9092"]`, brokers,
		`dsn = "mysql://btcpool:password@tcp(127.0.0.1:3306)/btcpool"`, fmt.Sprintf("dsn = %q", dsn),
		`"http://127.0.0.1:8332"`, fmt.Sprintf("%q", url),
		`rpc_cookie_file = "/var/lib/bitcoind/.cookie"`, `rpc_user = "u"` + "\n" + `rpc_password = "p"`,
		`/var/lib/btcpool/`, data + "/",
	}
	changes := map[string][]string{}
	for _, program := range order {
		changes[program] = common
	}
	dir := samples(t, changes)

	wants(t, 1, "BtcShare         "+kafka.UnknownTopicOrPartition.Error(), "-C", dir, "topics")
	wants(t, 0, "8 topics are there", "-C", dir, "topics", "create")

	wants(t, 1, "no such table", "-C", dir, "users", "list") // who looks does not migrate
	wants(t, 0, data+"/pool.db has the schema of this version", "-C", dir, "migrate")
	wants(t, 0, "user alice has the id 1", "-C", dir, "users", "add", "alice")
	wants(t, 1, "user alice is there already", "-C", dir, "users", "add", "alice")
	wants(t, 0, "1   alice", "-C", dir, "users", "list")

	db, err := store.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i, hash := range []string{confirmed, gone, unknown} {
		if err := db.AddBlock(t.Context(), store.Block{
			UserID: 1, WorkerID: 5, WorkerName: "alice.rig", Height: 800 + int32(i), Hash: hash, CreatedAt: time.Now(), State: store.Accepted, Bits: 1, RewardSat: 5, SubPool: "farm",
		}); err != nil {
			t.Fatal(err)
		}
	}
	wants(t, 1, "beside the chain !", "-C", dir, "blocks")
	wants(t, 1, "unknown !", "-C", dir, "blocks")
	wants(t, 0, url+": 3 confirmations", "-C", dir, "follow", "block", confirmed)
	wants(t, 0, "height 800, accepted, found by alice.rig", "-C", dir, "follow", "block", strings.ToUpper(confirmed))
	wants(t, 0, "for the sub-pool farm", "-C", dir, "follow", "block", confirmed)
	wants(t, 1, "no row", "-C", dir, "follow", "block", strings.Repeat("0d", 32))

	now := time.Now()
	s := share.Share{
		ID: share.ID{Server: 1, Epoch: 3, Seq: 77}, JobID: 9, UserID: 1, WorkerID: 5, Status: share.StatusAccept, Time: now.Unix(), Difficulty: 3,
		Bits: 0x1d00ffff, Height: 800, Nonce: 0xabcdef01, SessionID: 0x01000001,
	}
	topics := bus.DefaultConfig()
	topics.Brokers = []string{broker.Addr()}
	client := testkit.Bus(t, topics)
	if err := client.Write(t.Context(), topics.Topics.Share, bus.Message{Value: s.AppendTo(nil)}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(data, "sharelogger"), 0o750); err != nil {
		t.Fatal(err)
	}
	testkit.AppendShares(t, filepath.Join(data, "sharelogger"), "BTC", []share.Share{s})
	for _, how := range [][]string{{"--id", "1-3-77"}, {"--session", "01000001", "--nonce", "abcdef01"}} {
		args := append([]string{"-C", dir, "follow", "share"}, how...)
		wants(t, 0, "BtcShare, partition 0, offset 0: share 1-3-77 of user 1, worker 5, Share accepted, difficulty 8, job 9, height 800", args...)
		wants(t, 0, "share log of BTC, day "+fmt.Sprint(sharefile.DayOf(s.Time)), args...)
		wants(t, 0, "has no row of the hour", args...)
	}
	wants(t, 1, "no such share", "-C", dir, "follow", "share", "--id", "1-3-78")

	wants(t, 1, "slparser     -        not running: dial tcp 127.0.0.1:9106", "-C", dir, "status")
	wants(t, 1, "has block 900 and headers up to 950", "-C", dir, "doctor")
	wants(t, 1, "configurations: nothing wrong\n", "-C", dir, "doctor")
	wants(t, 1, "Kafka: nothing wrong\n", "-C", dir, "doctor")
	wants(t, 1, "database: nothing wrong\n", "-C", dir, "doctor")
}
