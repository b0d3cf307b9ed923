package operator

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"btcpool/internal/telemetry"
	"btcpool/internal/userchain"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

// server has the id 7 and nobody on it.
type server struct{ Server }

func (server) SwitchAuto(id string, shares userchain.Shares) (Switched, error) {
	if shares["bch"] != 1 {
		return Switched{From: "btc"}, errors.New("unknown chain")
	}
	return Switched{From: "btc", To: "bch", Users: 2, Connections: 3}, nil
}

func (server) Status() Status { return Status{Started: time.Unix(1_600_000_000, 0), ServerID: 7} }

func managed() *Commands {
	cfg := DefaultCommands()
	cfg.Enabled = true
	return NewCommands(cfg, server{}, nil, telemetry.Deps{Log: zerolog.Nop()})
}

func TestCommands(t *testing.T) {
	t.Parallel()
	m := managed()
	now := time.Unix(1_700_000_000, 0)
	for _, test := range []struct {
		text, want string
		age        time.Duration
	}{
		{`{"type":"sserver_cmd","action":"list","id":1}`, "answered", 0},
		{`{"type":"sserver_cmd","action":"get_status"}`, "answered", time.Minute},
		{`{"type":"sserver_cmd","action":"list"}`, "old", time.Minute + 1},
		{`{"type":"sserver_cmd","action":"list","filter":{"server_id":{"7":true}}}`, "answered", 0},
		{`{"type":"sserver_cmd","action":"list","filter":{"server_id":{"7":false}}}`, "for others", 0},
		{`{"type":"sserver_cmd","action":"list","filter":{"server_id":{"8":true}}}`, "for others", 0},
		{`{"type":"sserver_cmd","action":"list","filter":{"server_id":{"8":true},"exclusion":true}}`, "answered", 0},
		{`{"type":"sserver_cmd","action":"list","filter":{"server_id":{"7":true},"exclusion":true}}`, "for others", 0},
		{`{"type":"sserver_cmd","action":"list","filter":{"exclusion":true}}`, "answered", 0},
		{`{"type":"sserver_cmd","action":"list","filter":{"server_id":[7]}}`, "bad", 0},
		{`{"type":"sserver_cmd","action":"list","filter":7}`, "bad", 0},
		{`{"type":"sserver_cmd","action":"auto_switch_chain","chain_name":"bch"}`, "answered", 0},
		{`{"type":"sserver_cmd","action":"auto_switch_chain","chain_name":"_"}`, "answered", 0},
		{`{"type":"sserver_cmd","action":"shutdown"}`, "unknown", 0},
		{`{"type":"sserver_response","action":"list"}`, "foreign", 0},
		{`[]`, "bad", 0},
		{``, "bad", 0},
		{`{"type":"sserver_cmd","action":"list","id":"` + strings.Repeat("x", maxCommand) + `"}`, "bad", 0},
	} {
		if got := m.take([]byte(test.text), now.Add(-test.age), now); got != test.want {
			t.Errorf("%.100s: %s, want %s", test.text, got, test.want)
		}
		select {
		case <-m.replies:
			if test.want != "answered" {
				t.Errorf("%.100s: replied", test.text)
			}
		default:
			if test.want == "answered" {
				t.Errorf("%.100s: no reply", test.text)
			}
		}
	}
}

// A command without a time, as some producers send it, is one of now.
func TestCommandWithoutTime(t *testing.T) {
	t.Parallel()
	if got := managed().take([]byte(`{"type":"sserver_cmd","action":"list"}`), time.Time{}, time.Unix(1_700_000_000, 0)); got != "answered" {
		t.Error(got)
	}
}

// Neither a flood of commands nor an absent Kafka takes more than its share.
func TestCommandsAreBounded(t *testing.T) {
	t.Parallel()
	m := managed()
	results := make(map[string]int)
	for range 10 * commandBurst {
		now := time.Unix(1_700_000_000, 0)
		results[m.take([]byte(`{"type":"sserver_cmd","action":"list"}`), now, now)]++
	}
	if diff := cmp.Diff(map[string]int{"answered": commandBurst, "too many": 9 * commandBurst}, results); diff != "" {
		t.Error(diff)
	}
	for range 2 * maxReplies {
		m.Exception(errors.New("again"))
	}
	if len(m.replies) != maxReplies {
		t.Errorf("%d replies wait", len(m.replies))
	}
}

// Whatever comes, a reply is JSON that echoes the command's id.
func FuzzCommand(f *testing.F) {
	for _, text := range []string{
		`{"type":"sserver_cmd","action":"list","id":{"a":[1,"x",null]},"filter":{"server_id":{"7":true}}}`,
		`{"type":"sserver_cmd","action":"get_status","id":1e999,"filter":null}`,
		`{"type":"sserver_cmd","action":"get_status","filter":{"server_id":{"1":true},"exclusion":true}}`,
		`{"type":"sserver_cmd","action":"auto_switch_chain","chain_name":"x"}`,
		`{"type":1}`,
	} {
		f.Add([]byte(text))
	}
	m := managed()
	now := time.Unix(1_700_000_000, 0)
	f.Fuzz(func(t *testing.T, text []byte) {
		now = now.Add(time.Second) // within the rate
		if m.take(text, now, now) != "answered" {
			if len(m.replies) > 0 {
				t.Fatalf("%q: replied", text)
			}
			return
		}
		var asked, replied struct {
			Type   string
			Action string
			ID     json.RawMessage
		}
		reply := <-m.replies
		if err := errors.Join(json.Unmarshal(text, &asked), json.Unmarshal(reply, &replied)); err != nil {
			t.Fatalf("%q: %q: %v", text, reply, err)
		}
		if replied.Type != typeResponse || replied.Action != asked.Action || !bytes.Equal(compact(replied.ID), compact(asked.ID)) {
			t.Fatalf("%q: %q", text, reply)
		}
	})
}

func compact(text json.RawMessage) []byte {
	var b bytes.Buffer
	if len(text) > 0 && json.Compact(&b, text) != nil {
		return nil
	}
	var escaped bytes.Buffer // as a reply has it
	json.HTMLEscape(&escaped, b.Bytes())
	return escaped.Bytes()
}

// Each command for users in auto mode is answered, with a reason if it is not done.
func TestSwitchCommand(t *testing.T) {
	t.Parallel()
	m := managed()
	now := time.Unix(1_700_000_000, 0)
	for command, want := range map[string]string{
		`"id":5,"chain_name":"bch"`:                               `{"result":true,"old_chain_name":"btc","new_chain_name":"bch","switched_users":2,"switched_connections":3}`,
		`"id":"x","chain_name":"bch","shares":{"btc":1}`:          `{"result":false,"reason":"unknown chain","old_chain_name":"btc","new_chain_name":"","switched_users":0,"switched_connections":0}`,
		`"id":7,"chain_name":"bch","shares":{"btc":2}`:            `{"result":false,"reason":"chain btc has a share of 2","old_chain_name":"","new_chain_name":"","switched_users":0,"switched_connections":0}`,
		`"id":8,"chain_name":"bch","shares":{"bch":1},"more":"x"`: `{"result":true,"old_chain_name":"btc","new_chain_name":"bch","switched_users":2,"switched_connections":3}`,
	} {
		m.take([]byte(`{"type":"sserver_cmd","action":"auto_switch_chain",`+command+`}`), now, now)
		var got struct {
			ID json.RawMessage `json:"id"`
			Switch
		}
		if err := json.Unmarshal(<-m.replies, &got); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(got.Switch)
		if err != nil || string(text) != want || !strings.Contains(command, `"id":`+string(got.ID)) {
			t.Errorf("%s: id %s, %s, %v", command, got.ID, text, err)
		}
	}
}
