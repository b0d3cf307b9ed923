package share_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

func TestParseEvent(t *testing.T) {
	t.Parallel()
	got, err := share.ParseEvent(testkit.Hex(t, "event.hex"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(event(), got, cmpAddr); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestServerDead(t *testing.T) {
	t.Parallel()
	want := share.Event{Time: time.Unix(1_700_000_000, 0).UTC(), Action: share.ServerDead, SessionID: 7 << 24}
	text := want.AppendTo(nil)
	if !strings.Contains(string(text), `"type":"server_update"`) {
		t.Errorf("btcpool would take it for a worker: %s", text)
	}
	got, err := share.ParseEvent(text)
	if diff := cmp.Diff(want, got, cmpAddr); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestServerServing(t *testing.T) {
	t.Parallel()
	const text = `{"created_at":"2023-11-14 22:13:20","type":"server_update","action":"server_serving","content":` +
		`{"user_id":0,"user_name":"","worker_id":0,"worker_name":"","miner_agent":"","ip":"",` +
		`"session_id":"07000000","desc":"","instance":"18d1","epoch":1700000000}}`
	want := share.Event{
		Time: time.Unix(1_700_000_000, 0).UTC(), Action: share.ServerServing, SessionID: 7 << 24,
		Instance: "18d1", Epoch: 1_700_000_000,
	}
	if diff := cmp.Diff(text, string(want.AppendTo(nil))); diff != "" {
		t.Error(diff)
	}
	got, err := share.ParseEvent([]byte(text))
	if diff := cmp.Diff(want, got, cmpAddr); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestParseEventRefuses(t *testing.T) {
	t.Parallel()
	const whole = `{"created_at":"2023-11-14 22:15:23","type":"worker_update","action":"miner_dead","content":` +
		`{"user_id":1,"user_name":"u","worker_id":-1,"worker_name":"w","miner_agent":"a","ip":"1.2.3.4",` +
		`"session_id":"0100002a","desc":"del_conn"}}`
	if _, err := share.ParseEvent([]byte(whole)); err != nil {
		t.Fatal(err)
	}
	for name, replace := range map[string][2]string{
		"cut":            {`"del_conn"}}`, `"del`},
		"other type":     {"worker_update", "miner_connect"},
		"other action":   {"miner_dead", "miner_slept"},
		"no user":        {`"user_id":1,`, ``},
		"user as text":   {`"user_id":1`, `"user_id":"1"`},
		"user too large": {`"user_id":1`, `"user_id":2147483648`},
		"no worker":      {`"worker_id":-1,`, ``},
		"no name":        {`"worker_name":"w",`, ``},
		"no agent":       {`"miner_agent":"a",`, ``},
		"time":           {"2023-11-14 22", "2023-11-14 25"},
		"address":        {"1.2.3.4", "1.2.3"},
		"session":        {"0100002a", "0100002ag"},
	} {
		in := strings.Replace(whole, replace[0], replace[1], 1)
		if _, err := share.ParseEvent([]byte(in)); !errors.Is(err, share.ErrEvent) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add(testkit.Hex(f, "event.hex"))
	f.Fuzz(func(t *testing.T, in []byte) {
		e, err := share.ParseEvent(in)
		if err != nil {
			return
		}
		again, err := share.ParseEvent(e.AppendTo(nil))
		if diff := cmp.Diff(e, again, cmpAddr); err != nil || diff != "" {
			t.Fatalf("%q is not stable: %v\n%s", in, err, diff)
		}
	})
}
