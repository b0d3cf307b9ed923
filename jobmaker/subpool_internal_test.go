package jobmaker

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"btcpool/internal/registry"
	"btcpool/internal/service"
)

const (
	firstAddress  = "bcrt1qwv4vhllgu3hsr0k3c2sspleh87dwey3wm0sw4t"
	secondAddress = "bcrt1qqqqsyqcyq5rqwzqfpg9scrgwpugpzysnard0ew"
)

func subPoolService(t *testing.T) *Service {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Network, cfg.PayoutAddress = "regtest", firstAddress
	cfg.ZooKeeper.Servers = []string{"127.0.0.1:2181"}
	cfg.SubPools = []SubPool{
		{Name: "farm", PayoutAddress: firstAddress, CoinbaseText: "/farm/", UpdatePath: "/jobmaker/subpool/farm"},
		{Name: "other", PayoutAddress: firstAddress, CoinbaseText: "/other/"},
	}
	s, err := New(cfg, service.Deps{Log: zerolog.New(zerolog.NewTestWriter(t)), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestUpdateSubPool(t *testing.T) {
	t.Parallel()
	second, err := subPoolService(t).network.PayoutScript(secondAddress)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 31)
	for name, tt := range map[string]struct {
		request string
		maxText int
		text    string // afterwards
		message string
		success bool
	}{
		"both":          {`{"coinbase_info":"/new/","payout_addr":"` + secondAddress + `"}`, 30, "/new/", "success", true},
		"more keys":     {`{"x":[1],"coinbase_info":"","payout_addr":"` + secondAddress + `"}`, 30, "", "success", true},
		"with an id":    {`{"request_id":"one","coinbase_info":"/new/","payout_addr":"` + secondAddress + `"}`, 30, "/new/", "success", true},
		"an id alone":   {`{"request_id":"one"}`, 30, "/farm/", "field missing or wrong field type", false},
		"a strange id":  {`{"request_id":{},"coinbase_info":"/new/","payout_addr":"` + secondAddress + `"}`, 30, "/new/", "success", true},
		"long text":     {`{"coinbase_info":"` + long + `","payout_addr":"` + secondAddress + `"}`, 30, long[:30], "success, but coinbase_info was cut to 30 bytes", true},
		"nothing":       {"", 30, "/farm/", "empty request", false},
		"one missing":   {`{"coinbase_info":"/new/"}`, 30, "/farm/", "field missing or wrong field type", false},
		"wrong type":    {`{"coinbase_info":1,"payout_addr":"` + secondAddress + `"}`, 30, "/farm/", "field missing or wrong field type", false},
		"null":          {`{"coinbase_info":null,"payout_addr":"` + secondAddress + `"}`, 30, "/farm/", "field missing or wrong field type", false},
		"no object":     {`[]`, 30, "/farm/", "json: cannot unmarshal array", false},
		"wrong network": {`{"coinbase_info":"","payout_addr":"1BoatSLRHtKNngkdXEeobR76b53LETtpyT"}`, 30, "/farm/", "invalid payout address", false},
		"huge":          {`"` + strings.Repeat("x", maxUpdate) + `"`, 30, "/farm/", "request of more than 8192 bytes", false},
		"no room":       {`{"coinbase_info":"` + strings.Repeat("x", 100) + `","payout_addr":"` + secondAddress + `"}`, 200, "/farm/", "coinbase_text", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := subPoolService(t)
			s.cfg.MaxUpdateText = tt.maxText
			before := s.builder.Load()
			now := subPoolCoinbase{"/farm/", firstAddress}
			at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
			text := s.updateSubPool("farm", &now, []byte(tt.request), registry.Host{Hostname: "host", IP: "10.0.0.1"}, at)

			var answer map[string]any
			if err := json.Unmarshal(text, &answer); err != nil {
				t.Fatal(err)
			}
			if message, _ := answer["err_msg"].(string); !strings.HasPrefix(message, tt.message) {
				t.Errorf("message %q, want %q", message, tt.message)
			}
			want := map[string]any{
				"created_at": "2026-03-01 12:00:00", "host": map[string]any{"hostname": "host", "ip": "10.0.0.1"}, "subpool_name": "farm",
				"old": map[string]any{"coinbase_info": "/farm/", "payout_addr": firstAddress}, "success": tt.success,
			}
			result := "refused"
			if tt.success {
				want["new"] = map[string]any{"coinbase_info": tt.text, "payout_addr": secondAddress}
				result = "accepted"
			}
			if strings.Contains(tt.request, `"request_id":"one"`) {
				want["request_id"] = "one"
			}
			delete(answer, "err_msg")
			if diff := cmp.Diff(want, answer); diff != "" {
				t.Error(diff)
			}
			if n := testutil.ToFloat64(s.metrics.updates.WithLabelValues("farm", result)); n != 1 {
				t.Errorf("counted %v times", n)
			}

			after := s.builder.Load()
			if got := after.subPools["farm"]; got.text != tt.text || bytes.Equal(got.payouts[0].script, second) != tt.success {
				t.Errorf("coinbase %+v", got)
			}
			if before.subPools["farm"].text != "/farm/" || after.subPools["other"].text != "/other/" || (after == before) == tt.success {
				t.Error("what others use was changed")
			}
		})
	}
}

func TestUpdatePaths(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.Network, cfg.PayoutAddress, cfg.MaxUpdateText = "regtest", firstAddress, -1
	for i, path := range []string{"/a", "/a", "a", cfg.IDLeasePath} {
		cfg.SubPools = append(cfg.SubPools, SubPool{Name: string(rune('a' + i)), PayoutAddress: firstAddress, UpdatePath: path})
	}
	err := cfg.Validate()
	if err == nil || !strings.Contains(err.Error(), "needs zookeeper.servers") {
		t.Errorf("without ZooKeeper: %v", err)
	}
	cfg.ZooKeeper.Servers = []string{"127.0.0.1:2181"}
	err = cfg.Validate()
	for _, key := range []string{"sub_pools[1].update_path", "sub_pools[2].update_path", "sub_pools[3].update_path", "sub_pool_max_update_text"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%v: does not name %s", err, key)
		}
	}
	if err != nil && strings.Contains(err.Error(), "sub_pools[0]") {
		t.Error(err)
	}
}
