package auxmaker_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"btcpool/auxmaker"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
)

// newServer serves JSON-RPC whose results are JSON texts.
func newServer(result func(method string) string) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request struct{ Method string }
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, `{"result":%s,"error":null,"id":"1"}`, result(request.Method))
	}))
}

func TestConfigFile(t *testing.T) {
	t.Parallel()
	cfg := auxmaker.DefaultConfig()
	if err := service.Load("../configs/auxmaker.toml", &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	if len(cfg.Chains) != 1 || cfg.Chains[0].CookieFile == "" || cfg.RSK.URL == "" {
		t.Errorf("%+v", cfg)
	}
	testkit.SampleNames(t, "../configs/auxmaker.toml", cfg,
		"kafka.share_partitions", "kafka.topics.raw_gbt", "kafka.topics.job", "kafka.topics.share", "kafka.topics.solved_share",
		"kafka.topics.common_events", "kafka.topics.aux_solved", "kafka.topics.rsk_solved")
}

func TestEnvironment(t *testing.T) {
	for key, value := range map[string]string{
		"CHAINS_0_NAME": "namecoin", "CHAINS_0_RPC_URL": "http://namecoind:8336", "CHAINS_0_RPC_USER": "user",
		"CHAINS_0_RPC_PASSWORD": "secret", "RSK_RPC_URL": "http://rskj:4444",
	} {
		t.Setenv("BTCPOOL_"+key, value)
	}
	cfg := auxmaker.DefaultConfig()
	if err := service.Load("", &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil || cfg.Chains[0].URL != "http://namecoind:8336" || cfg.RSK.URL != "http://rskj:4444" {
		t.Errorf("%v: %+v", err, cfg)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	chain := auxmaker.Chain{Name: "a", Config: noderpc.Config{URL: "http://h:1", User: "user", Password: "secret"}}
	for _, tt := range []struct {
		name   string
		change func(*auxmaker.Config)
		want   []string
	}{
		{"good", func(*auxmaker.Config) {}, nil},
		{"nothing to do", func(c *auxmaker.Config) { c.Chains = nil }, []string{"chains: at least one"}},
		{"times", func(c *auxmaker.Config) {
			c.PollInterval = config.Duration(time.Minute)
			c.WorkLifetime = config.Duration(time.Second)
		}, []string{"poll_interval", "work_lifetime"}},
		{"names", func(c *auxmaker.Config) {
			c.Chains = append(c.Chains, chain, auxmaker.Chain{Name: "B", Config: chain.Config})
		}, []string{`chains[1].name = "a": is taken`, `chains[2].name = "B": must be`}},
		{"node", func(c *auxmaker.Config) { c.Chains[0].URL = "" }, []string{"chains[0].rpc_url"}},
		{"RSK", func(c *auxmaker.Config) {
			c.RSK.URL, c.RSK.Name, c.RSK.Password = "ftp://u:p@h", "a", "x"
		}, []string{"rsk.name", "rsk.rpc_url", "rsk.rpc_user"}},
		{"listen", func(c *auxmaker.Config) { c.NotifyListen = "9999" }, []string{"notify_listen"}},
		{"topics", func(c *auxmaker.Config) {
			c.RSK.URL = "http://h:1"
			c.Kafka.Topics.AuxWork, c.Kafka.Topics.RSKWork = "", ""
		}, []string{"aux_work", "rsk_work"}},
		{"publish", func(c *auxmaker.Config) {
			c.PublishRPC = true
			c.Chains = append(c.Chains, auxmaker.Chain{Name: "b", Config: noderpc.Config{URL: "http://h:2", CookieFile: "c"}})
			c.Chains[0].Password = `se"cret`
		}, []string{"one chain only", "chains[0] needs", "chains[1] needs rpc_user"}},
		{"kafka", func(c *auxmaker.Config) { c.Kafka.Brokers = nil }, []string{"kafka.brokers"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := auxmaker.DefaultConfig()
			cfg.Chains = []auxmaker.Chain{chain}
			tt.change(&cfg)
			err := cfg.Validate()
			if (err == nil) != (tt.want == nil) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v: does not say %q", err, want)
				}
			}
			if _, newErr := auxmaker.New(cfg, service.Deps{}); err != nil && (newErr == nil || newErr.Error() != err.Error()) {
				t.Errorf("New: %v", newErr)
			}
		})
	}
}
