package userchain_test

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/userchain"
)

func TestCheckUser(t *testing.T) {
	t.Parallel()
	for name, good := range map[string]bool{
		"alice": true, "Alice_bch": true, "a.b": true, "0x12|34:^-": true, strings.Repeat("a", 200): true,
		"": false, ".": false, "..": false, "a/b": false, "/": false, "ali ce": false, "älice": false, "a\x00": false, strings.Repeat("a", 201): false,
	} {
		if err := userchain.CheckUser(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestValue(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]userchain.Value{
		"btc":             {Chain: "btc"},
		" auto\n":         {Chain: "auto"},
		`{"chain":"btc"}`: {Chain: "btc"},
		`{"chain":"btc","subpool":"farm","puids":{"btc":12,"bch":13}}`: {Chain: "btc", Subpool: "farm", PUIDs: map[string]int32{"btc": 12, "bch": 13}},
	} {
		if got, err := userchain.ParseValue([]byte(text)); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "{", "a/b", strings.Repeat("a", 33), `{"chain":""}`, `{"chain":1}`, `{"chain":"btc","subpool":"a/b"}`,
		`{"chain":"btc","puids":{"btc":0}}`, `{"chain":"btc","puids":{"btc":4294967296}}`, `{"chain":"btc","puids":{"":1}}`,
		`{"chain":"btc"` + strings.Repeat(" ", 9000) + `}`,
	} {
		if got, err := userchain.ParseValue([]byte(text)); err == nil {
			t.Errorf("%.40s: %+v", text, got)
		}
	}
	v := userchain.Value{Chain: "btc", PUIDs: map[string]int32{"btc": 12, "bch": 13}}
	if got := string(v.JSON()); got != `{"chain":"btc","subpool":"","puids":{"bch":13,"btc":12}}` {
		t.Error(got)
	}
	if got := string(userchain.Value{Chain: "btc"}.JSON()) + string(v.Plain()); got != `{"chain":"btc","subpool":"","puids":{}}btc` {
		t.Error(got)
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	c := userchain.SwitchCommand{ID: 7, At: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC), Shares: userchain.Shares{"btc": 0.75, "bch": 0.25}}
	const want = `{"id":7,"type":"sserver_cmd","action":"auto_switch_chain","created_at":"2020-01-02 03:04:05","chain_name":"btc","shares":{"bch":0.25,"btc":0.75}}`
	if got := string(c.Encode()); got != want {
		t.Error(got)
	}
	if got, err := userchain.ParseSwitchCommand(c.Encode()); err != nil || !cmp.Equal(got, c) {
		t.Errorf("%+v, %v", got, err)
	}
	// As chainSwitcher writes it.
	old, err := userchain.ParseSwitchCommand([]byte(`{"id":"x","type":"sserver_cmd","action":"auto_switch_chain","chain_name":"bch"}`))
	if err != nil || !cmp.Equal(old.Shares, userchain.Shares{"bch": 1}) {
		t.Errorf("%+v, %v", old, err)
	}
	for _, text := range []string{
		`{`, `{"type":"sserver_cmd","action":"auto_switch_chain"}`, `{"type":"sserver_cmd","action":"auto_switch_chain","chain_name":"auto"}`,
		`{"type":"sserver_cmd","action":"auto_switch_chain","shares":{"btc":0.5}}`, `{"type":"sserver_cmd","action":"auto_switch_chain","shares":{"btc":2,"bch":-1}}`,
	} {
		if got, err := userchain.ParseSwitchCommand([]byte(text)); err == nil || errors.Is(err, userchain.ErrForeign) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	if _, err := userchain.ParseSwitchCommand([]byte(`{"type":"sserver_cmd","action":"list"}`)); !errors.Is(err, userchain.ErrForeign) {
		t.Error(err)
	}
}

func TestNotice(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]userchain.Notice{
		`{"type":"sserver_notify","action":"online","server_id":3}`:                                                           {ServerID: 3, Online: true},
		`{"type":"sserver_response","action":"auto_switch_chain","id":7,"server_id":3,"result":true,"new_chain_name":"bch"}`:  {ServerID: 3, Response: true, ID: 7, Done: true, Chain: "bch"},
		`{"type":"sserver_response","action":"auto_switch_chain","id":"x","server_id":3,"result":false,"reason":"no change"}`: {ServerID: 3, Response: true, Reason: "no change"},
	} {
		if got, err := userchain.ParseNotice([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	if _, err := userchain.ParseNotice([]byte(`{"type":"sserver_notify","action":"offline"}`)); !errors.Is(err, userchain.ErrForeign) {
		t.Error(err)
	}
}

// TestSharesMoveFew moves a tenth of the users and sees nobody else move, and everybody where the share says.
func TestSharesMoveFew(t *testing.T) {
	t.Parallel()
	const users = 20_000
	before := userchain.Shares{"btc": 0.6, "bch": 0.3, "bsv": 0.1}
	after := userchain.Shares{"btc": 0.5, "bch": 0.4, "bsv": 0.1}
	count, moved, astray := map[string]int{}, 0, 0
	for i := range users {
		user := "user" + strconv.Itoa(i)
		was, is := before.Of(user), after.Of(user)
		count[was]++
		if was != is {
			moved++
			if is != "bch" && was != "btc" {
				astray++
			}
		}
	}
	for chain, part := range before {
		if got := float64(count[chain]) / users; math.Abs(got-part) > 0.02 {
			t.Errorf("%s has %.3f of the users, and is to have %v", chain, got, part)
		}
	}
	if part := float64(moved) / users; part < 0.08 || part > 0.16 || astray > 0 {
		t.Errorf("%.3f of the users move, %d between chains whose shares stay or against them", part, astray)
	}
	if got := (userchain.Shares{"btc": 1, "bch": 0}).Of("anybody"); got != "btc" {
		t.Error(got)
	}
	if got := (userchain.Shares{}).Of("anybody"); got != "" {
		t.Error(got)
	}
}

func FuzzParseValue(f *testing.F) {
	f.Add([]byte("btc"))
	f.Add([]byte(`{"chain":"auto","subpool":"farm","puids":{"btc":12}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := userchain.ParseValue(text)
		if err != nil {
			return
		}
		again, err := userchain.ParseValue(v.JSON())
		if v.PUIDs == nil {
			v.PUIDs = map[string]int32{}
		}
		if err != nil || !cmp.Equal(again, v) {
			t.Fatalf("%q: %+v, then %+v, %v", text, v, again, err)
		}
		if plain, err := userchain.ParseValue(v.Plain()); err != nil || plain.Chain != v.Chain {
			t.Fatalf("%q: plain %+v, %v", text, plain, err)
		}
	})
}

func FuzzParseMessages(f *testing.F) {
	f.Add(userchain.SwitchCommand{ID: 7, Shares: userchain.Shares{"btc": 0.75, "bch": 0.25}}.Encode())
	f.Add([]byte(`{"type":"sserver_response","action":"auto_switch_chain","id":7,"server_id":3,"result":true}`))
	f.Add([]byte(`{"SessionID":16777217,"Worker":"alice.rig"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := userchain.ParseSwitchCommand(text); err == nil {
			if got := c.Shares.Of("alice"); got == "" {
				t.Fatalf("%q: nobody mines anything", text)
			}
			if again, err := userchain.ParseSwitchCommand(c.Encode()); err != nil || !cmp.Equal(again.Shares, c.Shares) || again.ID != c.ID {
				t.Fatalf("%q: %+v, then %+v, %v", text, c, again, err)
			}
		}
		if n, err := userchain.ParseNotice(text); err == nil && n.Online == n.Response {
			t.Fatalf("%q: %+v", text, n)
		}
		_, _ = userchain.ParseRequest(text)
	})
}
