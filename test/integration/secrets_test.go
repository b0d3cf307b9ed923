//go:build integration

package integration

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"btcpool/agentproxy"
	"btcpool/auxmaker"
	"btcpool/blkmaker"
	"btcpool/gbtmaker"
	"btcpool/internal/testkit"
	"btcpool/jobmaker"
	"btcpool/poolwatcher"
	"btcpool/sharelogger"
	"btcpool/slparser"
	"btcpool/sserver"
	"btcpool/statshttpd"
	"btcpool/switchapi"
	"btcpool/switcher"
	"btcpool/test/integration/rig"
)

// secrets are values that nobody but the program that has one and whom it is for may ever see.
type secrets struct {
	all    []string
	wanted []string // which somebody is to be shown
	mu     sync.Mutex
	met    map[string]bool // who was to be shown them was
}

// mark returns the next secret, which is a token and a password alike.
func (s *secrets) mark() string {
	secret := fmt.Sprintf("S3CRET-number-%04d-of-all", len(s.all))
	s.all = append(s.all, secret)
	return secret
}

// shown returns the next secret, which is one that somebody is to be shown.
func (s *secrets) shown() string {
	secret := s.mark()
	s.wanted = append(s.wanted, secret)
	return secret
}

// forms are what a secret may look like on its way.
func forms(secret string) []string {
	all := []string{secret}
	for _, before := range []string{"", "u:", "me:"} { // as of HTTP's basic authentication
		all = append(all, base64.StdEncoding.EncodeToString([]byte(before+secret)))
	}
	return all
}

// see notes which secrets stand in what somebody was sent.
func (s *secrets) see(sent string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range s.all {
		for _, form := range forms(secret) {
			if strings.Contains(sent, form) {
				s.met[secret] = true
			}
		}
	}
}

func (s *secrets) seen(secret string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.met[secret]
}

// web is a server that refuses everybody, and says in its page what it was asked, as proxies and debug pages do.
func (s *secrets) web(t *testing.T) (url string) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var sent strings.Builder
		_ = r.Write(&sent)
		s.see(sent.String())
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "cannot %s %s\n%s", r.Method, r.URL, sent.String())
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// lines is a server that answers each line with one that repeats it, as Redis does with commands that it does not know.
func (s *secrets) lines(t *testing.T, answer string) (addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewScanner(conn)
				for in.Scan() {
					s.see(in.Text())
					if _, err := fmt.Fprintf(conn, answer, in.Text()); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

// secretKey is a key of a configuration whose value is one, or has one in it.
var secretKey = regexp.MustCompile(`^(.*(password|secret|token|dsn|access_key|secret_key)|(list_id_api_|subpool_)?url|register_url|sources)$`)

// keysOf adds the keys of secrets in a configuration, without sections.
func keysOf(of reflect.Type, keys map[string]bool) {
	switch of.Kind() {
	case reflect.Slice, reflect.Pointer:
		keysOf(of.Elem(), keys)
	case reflect.Struct:
		for i := range of.NumField() {
			f := of.Field(i)
			key, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
			if secretKey.MatchString(key) && (f.Type.Kind() == reflect.String || f.Type == reflect.TypeFor[[]string]()) {
				keys[key] = true
			} else if f.IsExported() {
				keysOf(f.Type, keys)
			}
		}
	}
}

// TestSecretsStayInside gives every service a secret wherever it takes one, lets nothing that it talks to be as it
// should but Kafka and ZooKeeper, which have no secrets and without which much is not tried, and reads all that it
// says: its log, its answers and its command line have none of them.
func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := &secrets{met: map[string]bool{}}
	web := s.web(t)
	redis := s.lines(t, "-ERR unknown command, with args beginning with: %s\r\n")
	pool := s.lines(t, `{"id":1,"result":null,"error":[24,%q,null]}`+"\n")
	nobody, stratum := testkit.FreeAddr(t), testkit.FreeAddr(t)
	file := func(secret string) string {
		path := filepath.Join(dir, secret[:len("S3CRET-number-0000")]+".file")
		if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	node := func(section, password string) string {
		return fmt.Sprintf("%s\nrpc_url = %q\nrpc_user = \"me\"\nrpc_password = %q\n", section, web, password)
	}
	nodes := node("[[nodes]]", s.shown()) +
		fmt.Sprintf("[[nodes]]\nrpc_url = %q\nrpc_user = \"me\"\nrpc_password_file = %q\n", "http://"+nobody, file(s.mark()))
	kafka := fmt.Sprintf("[kafka]\nbrokers = [%q]\n", testkit.Broker(t).Brokers[0])
	database := func(section string) string {
		return fmt.Sprintf("[%s]\ndsn = %q\n", section, "mysql://u:"+s.mark()+"@tcp("+nobody+")/btcpool")
	}
	data := func(name string) string { return fmt.Sprintf("data_dir = %q\n", filepath.Join(dir, name)) }
	zookeeper := fmt.Sprintf("[zookeeper]\nservers = [%q]\n", rig.StartZooKeeper(t, dir).Addr)
	handover := s.shown()
	target := func(name, kind, rest string) string {
		return fmt.Sprintf("[[notify.targets]]\nname = %q\nkind = %q\nallow_private = true\n", name, kind) + rest
	}
	hookKey := "whsec_" + base64.StdEncoding.EncodeToString([]byte(s.mark()))
	s.all = append(s.all, hookKey)
	botToken := "12345:" + s.shown()

	type program struct {
		config string
		is     any // its configuration
	}
	programs := map[string]program{
		"gbtmaker": {data("gbtmaker") + "network = \"regtest\"\n" + kafka + nodes, gbtmaker.Config{}},
		"jobmaker": {"network = \"regtest\"\nserver_id = 0\n" + fmt.Sprintf("payout_address = %q\n", rig.PayoutAddress) + kafka + zookeeper, jobmaker.Config{}},
		"blkmaker": {data("blkmaker") + "network = \"regtest\"\n" + nodes + kafka + database("database") + fmt.Sprintf("[handover]\nlisten = %q\ntoken = %q\n", testkit.FreeAddr(t), handover), blkmaker.Config{}},
		"sserver": {
			data("sserver") + kafka + database("database") + fmt.Sprintf("[handover]\nurls = [%q]\ntoken = %q\n", web, handover) +
				fmt.Sprintf("[users]\nsource = \"api\"\nlist_id_api_url = %q\nregister_url = %q\n", web+"/list?key="+s.shown(), web+"/register?key="+s.mark()),
			sserver.Config{},
		},
		"sharelogger": {data("sharelogger") + kafka + fmt.Sprintf("[seal]\nafter = \"1m\"\n[seal.archive]\nendpoint = %q\nbucket = \"b\"\ninsecure = true\naccess_key = %q\nsecret_key = %q\n", strings.TrimPrefix(web, "http://"), s.mark(), s.mark()), sharelogger.Config{}},
		"slparser":    {data("slparser") + database("database"), slparser.Config{}},
		"statshttpd": {
			kafka + database("database") + database("statistics_database") +
				fmt.Sprintf("[redis]\nurl = %q\npublish = [\"users\"]\n", "redis://me:"+s.mark()+"@"+redis+"/0") + fmt.Sprintf("[notify]\ndata_dir = %q\n", filepath.Join(dir, "notify")) +
				target("hook", "webhook", fmt.Sprintf("url = %q\nsecret = %q\n", web+"/hook/"+s.shown()+"?key="+s.shown(), hookKey)) +
				target("away", "webhook", fmt.Sprintf("url = %q\nsecret = %q\n", "http://"+nobody+"/hook/"+s.mark(), hookKey)) +
				target("bot", "telegram", fmt.Sprintf("url = %q\nsecret = %q\nto = [\"1\"]\n", web, botToken)) +
				target("lost", "telegram", fmt.Sprintf("url = %q\nsecret = %q\nto = [\"1\"]\n", "http://"+nobody, botToken)) +
				target("ntfy", "ntfy", fmt.Sprintf("url = %q\nsecret = %q\nto = [\"pool\"]\n", web, s.shown())) +
				target("mail", "email", fmt.Sprintf("url = %q\nlogin = \"u\"\nsecret = %q\nfrom = \"a@example.org\"\nto = [\"b@example.org\"]\n", "smtp://"+redis, s.mark())),
			statshttpd.Config{},
		},
		"auxmaker": {kafka + node("[[chains]]\nname = \"namecoin\"", s.shown()) + node("[rsk]\nname = \"rsk\"", s.shown()), auxmaker.Config{}},
		"poolwatcher": {
			"network = \"regtest\"\n" + kafka + node("[node]", s.mark()) +
				fmt.Sprintf("[[pools]]\nname = \"first\"\naddr = %q\nuser = \"u\"\npassword = %q\n", pool, s.mark()),
			poolwatcher.Config{},
		},
		"agentproxy": {
			fmt.Sprintf("[[listeners]]\nlisten = %q\n[[pools]]\naddr = \"pool.example:3333\"\naccount = \"farm\"\n[proxy]\nurls = [%q, %q]\n",
				testkit.FreeAddr(t), "http://me:"+s.shown()+"@"+strings.TrimPrefix(web, "http://"), "socks5://me:"+s.mark()+"@"+nobody),
			agentproxy.Config{},
		},
		"switchapi": {
			data("switchapi") + "chains = [\"btc\"]\n" + fmt.Sprintf("[[clients]]\nname = \"me\"\ntoken = %q\n", s.mark()) + zookeeper + kafka +
				fmt.Sprintf("[[lists]]\nchain = \"btc\"\nurl = %q\n", web+"/list?key="+s.shown()) +
				fmt.Sprintf("[nodes]\njson = true\n[map]\nurl = %q\nsubpool_url = %q\n", web+"/map?key="+s.shown(), web+"/subpool?key="+s.shown()) +
				fmt.Sprintf("[registration]\nurl = %q\nuser = \"me\"\npassword = %q\ndefault_chain = \"btc\"\n", web+"/registration?key="+s.mark(), s.mark()) +
				fmt.Sprintf("[auto]\nenabled = true\nfail_safe_chain = \"btc\"\nsources = [%q]\n[[auto.chains]]\nchain = \"btc\"\ncoin = \"BTC\"\n", web+"/coins?key="+s.shown()),
			switchapi.Config{},
		},
		"switcher": {
			data("switcher") + "default_chain = \"btc\"\n" + fmt.Sprintf("[[listeners]]\nlisten = %q\n", stratum) + zookeeper +
				fmt.Sprintf("[[chains]]\nname = \"btc\"\n[[chains.servers]]\naddr = %q\n", pool),
			switcher.Config{},
		},
	}
	without := []string{"btcpool", "btcpoolctl", "minersim"} // all of these services in one, and tools
	mains, err := filepath.Glob(filepath.Join(rig.Root(t), "cmd", "*", "main.go"))
	if err != nil || len(mains) < len(programs) {
		t.Fatalf("%d programs found, %v", len(mains), err)
	}
	for _, main := range mains {
		name := filepath.Base(filepath.Dir(main))
		if _, has := programs[name]; !has && !slices.Contains(without, name) {
			t.Errorf("%s is not in this test", name)
		}
	}
	for name, p := range programs {
		keys := map[string]bool{}
		keysOf(reflect.TypeOf(p.is), keys)
		for key := range keys {
			if !regexp.MustCompile(`(?m)^` + key + ` = .*(S3CRET|whsec_)`).MatchString(p.config) {
				t.Errorf("%s: its key %s has no secret in this test", name, key)
			}
		}
	}

	listens := map[string]string{}
	for _, name := range []string{"sserver", "slparser", "statshttpd", "switchapi"} {
		listens[name] = fmt.Sprintf("listen = %q\n", testkit.FreeAddr(t))
	}
	listens["auxmaker"] = fmt.Sprintf("notify_listen = %q\n", testkit.FreeAddr(t))
	listens["agentproxy"] = fmt.Sprintf("page = %q\n", testkit.FreeAddr(t))
	said := map[string]string{}
	services, admin := map[string]*rig.Process{}, map[string]string{}
	for name, p := range programs {
		admin[name] = testkit.FreeAddr(t)
		services[name] = rig.StartService(t, dir, name, name, fmt.Sprintf("admin = %q\n%s", admin[name], listens[name])+p.config+"[log]\nlevel = \"trace\"\n")
	}
	login(t, stratum, s.mark())
	// A target that cannot be told makes it end with 1.
	out, _ := exec.Command(rig.Bin(t, "statshttpd"), "-config", filepath.Join(dir, "statshttpd.toml"), "-notify-test").CombinedOutput()
	said["statshttpd -notify-test"] = string(out)
	for i, secret := range s.wanted {
		testkit.Eventually(t, fmt.Sprintf("secret %d, %q, is shown to whom it is for", i, secret), func() bool { return s.seen(secret) })
	}
	for name := range programs {
		for _, path := range []string{"metrics", "readyz", "healthz"} {
			testkit.Eventually(t, name+" answers", func() bool {
				res, err := http.Get("http://" + admin[name] + "/" + path)
				if err != nil {
					return false
				}
				defer res.Body.Close()
				text, err := io.ReadAll(res.Body)
				said[name+" /"+path] = string(text)
				return err == nil
			})
		}
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", services[name].Pid()))
		if err != nil {
			t.Error(err)
		}
		said[name+"'s command line"] = string(line)
	}
	for name, p := range services {
		if _, err := p.Stop(); err != nil {
			t.Error(err)
		}
		said[name+"'s log"] = p.LogTail(math.MaxInt32)
	}
	for where, text := range said {
		for _, secret := range s.all {
			for _, form := range forms(secret) {
				for line := range strings.Lines(text) {
					if strings.Contains(line, form) {
						t.Errorf("%s: %s", where, line)
					}
				}
			}
		}
	}
}

// login has a miner log in with a password, and stay until the test ends.
func login(t *testing.T, addr, password string) {
	t.Helper()
	var conn net.Conn
	testkit.Eventually(t, "somebody listens for miners", func() (ok bool) {
		var err error
		conn, err = net.Dial("tcp", addr)
		return err == nil
	})
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := fmt.Fprintf(conn, "{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[]}\n"+
		"{\"id\":2,\"method\":\"mining.authorize\",\"params\":[\"me.rig\",%q]}\n", password); err != nil {
		t.Error(err)
	}
}
