package sserver_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"btcpool/internal/bus"
	"btcpool/internal/testkit"
	"btcpool/sserver"
)

// replies returns what waits for the next reply to management commands, or notification, that is not of a probe, and what
// sends them.
func replies(t *testing.T, cfg sserver.Config) (next func(want object) object, commands *bus.Client) {
	t.Helper()
	client := testkit.Bus(t, cfg.Kafka, cfg.Management.ControllerTopic, cfg.Management.ProcessorTopic)
	got := make(chan object, 100)
	testkit.Run(t, func(ctx context.Context) error {
		return client.Read(ctx, cfg.Management.ProcessorTopic, bus.Earliest(), func(m bus.Message) error {
			var v object
			err := json.Unmarshal(m.Value, &v)
			got <- v
			return err
		})
	})
	return func(want object) object {
		t.Helper()
		for {
			select {
			case v := <-got:
				if v["id"] == "probe" && want["id"] != "probe" {
					continue
				}
				opts := cmpopts.IgnoreMapEntries(func(key string, _ any) bool { return want[key] == nil })
				if diff := cmp.Diff(want, v, opts); diff != "" {
					t.Error(diff)
				}
				return v
			case <-time.After(patience):
				t.Fatalf("no %v", want)
			}
		}
	}, client
}

// The words of the topics, from the first to the last; and a command is not executed again by the next process.
func TestManagement(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.ServerID = 3
	cfg.Management.Enabled = true
	next, client := replies(t, cfg)
	command := func(text string) {
		t.Helper()
		if err := client.Write(t.Context(), cfg.Management.ControllerTopic, bus.Message{Value: []byte(text)}); err != nil {
			t.Fatal(err)
		}
	}

	// The reading begins a moment after the start: what comes before is not heard.
	probe := func(p *pool) {
		t.Helper()
		var sent time.Time
		testkit.Eventually(t, "an answer", func() bool {
			if time.Since(sent) > 200*time.Millisecond {
				command(`{"type":"sserver_cmd","action":"list","id":"probe"}`)
				sent = time.Now()
			}
			return p.metric("management_commands_total", "result", "answered") > 0
		})
		next(object{"type": "sserver_response", "action": "list", "id": "probe"})
	}

	p := startPool(t, cfg)
	online := object{"type": "sserver_notify", "action": "online", "server_id": 3.0}
	next(online)
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	c.wantSubmit(c.share(w, 1), 0)
	c.wantSubmit(c.share(w, 1), 22)

	probe(p)
	command(`{"type":"sserver_cmd","action":"get_status","id":{"n":[1]},"filter":{"server_id":{"3":true}}}`)
	v := next(object{"type": "sserver_response", "action": "get_status", "id": object{"n": []any{1.0}}, "server_id": 3.0})
	status := v["status"].(object)
	if uptime, err := time.Parse(time.DateTime, status["uptime"].(string)); err != nil || time.Since(uptime) > patience {
		t.Errorf("uptime %v", status["uptime"])
	}
	if diff := cmp.Diff(object{"count": 1.0}, status["connections"]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(object{"state": object{"default": object{"connected": 0.0, "subscribed": 0.0, "authorized": 1.0}}}, v["connections"]); diff != "" {
		t.Error(diff)
	}
	chain := status["chains"].(object)["default"].(object)
	if diff := cmp.Diff(object{"1798084231": 1.0, "22": 1.0}, chain["share_status"]); diff != "" || chain["last_job_height"] != 100.0 {
		t.Error(diff, chain)
	}
	command(`{"type":"sserver_cmd","action":"auto_switch_chain","chain_name":"bch"}`)
	next(object{"type": "sserver_response", "action": "auto_switch_chain", "result": false, "reason": "there is one chain"})
	command(`{"type":"sserver_cmd","action":"list","id":"last"}`)
	next(object{"action": "list", "id": "last"})
	p.stop()
	next(object{"type": "sserver_notify", "action": "offline", "server_id": 3.0})

	p = startPool(t, cfg)
	next(online)
	probe(p) // not "last"
}

func TestManagementConfig(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Management.ControllerTopic = ""
	if err := cfg.Validate(); err != nil {
		t.Errorf("while it is off: %v", err)
	}
	cfg.Management.Enabled = true
	for _, topic := range []string{"", "a b", ".", "..", cfg.Kafka.Topics.Job, cfg.Management.ProcessorTopic} {
		cfg.Management.ControllerTopic = topic
		if cfg.Validate() == nil {
			t.Errorf("topic %q is taken", topic)
		}
	}
}
