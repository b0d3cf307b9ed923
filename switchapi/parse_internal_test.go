package switchapi

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMap(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]userMap{
		`{"err_no":0,"data":{"user_coin":{"alice":"btc"},"now_date":1600000000}}`:                  {of: map[string]string{"alice": "btc"}, now: 1600000000},
		`{"err_no":0,"err_msg":null,"data":{"user_coin":{"alice":"btc"},"now_date":"1600000000"}}`: {of: map[string]string{"alice": "btc"}, now: 1600000000},
		`{"err_no":0,"data":{"user_coin":[]}}`:                                                     {},
		`{"data":{"user_coin":{}}}`:                                                                {of: map[string]string{}},
	} {
		if got, err := parseMap([]byte(text), "user_coin"); err != nil || !cmp.Equal(got, want, cmp.AllowUnexported(userMap{})) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		``, `{}`, `{"err_no":1,"data":{"user_coin":{}}}`, `{"data":{"user_coin":["a"]}}`, `{"data":{"user_coin":{"a":1}}}`, `{"data":{"user_subpool":{}}}`,
		`{"data":{"user_coin":{},"now_date":"x"}}`, `{"data":{"user_coin":{},"now_date":-1}}`, `{"data":[]}`,
	} {
		if got, err := parseMap([]byte(text), "user_coin"); err == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

func TestParseRegistered(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int32{
		`{"status":"success","message":"","data":{"puid":12}}`: 12, `{"data":{"puid":"12"}}`: 12,
		`{"status":"fail","message":"no","data":{"puid":0}}`: 0, `{"data":{}}`: 0, `{"data":{"puid":-1}}`: 0, `{"data":{"puid":4294967296}}`: 0, `x`: 0,
	} {
		if got, err := parseRegistered([]byte(text)); got != want || (err == nil) != (want > 0) {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
}

func TestParseQuotes(t *testing.T) {
	t.Parallel()
	q, err := parseQuotes([]byte(`{"time":1600000000,"coins":{"BTC":{"price":60000,"difficulty":1e14,"reward":3.125},"BCH":{"price":500}}}`), "SHA256")
	if err != nil || q.at.Unix() != 1600000000 || q.of["BTC"].worth() != 60000*3.125/1e14 || q.of["BCH"].worth() != 0 {
		t.Errorf("%+v, %v", q, err)
	}
	q, err = parseQuotes([]byte(`{"algorithms":{"SHA256":{"coins":["BCH","BTC"]},"X":{"coins":["Y"]}}}`), "SHA256")
	if err != nil || !cmp.Equal(q.ranked, []string{"BCH", "BTC"}) {
		t.Errorf("%+v, %v", q, err)
	}
	for _, text := range []string{
		``, `{}`, `{"algorithms":{"X":{"coins":["Y"]}}}`, `{"coins":{"BTC":{"price":-1}}}`, `{"coins":{"BTC":{"price":1e31}}}`, `{"time":-1,"coins":{"BTC":{}}}`,
		`{"coins":{"BTC":{"price":"1"}}}`,
	} {
		if q, err := parseQuotes([]byte(text), "SHA256"); err == nil {
			t.Errorf("%s: %+v", text, q)
		}
	}
}

func TestParseRate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{`{"hashrate":{"5m":1.5e17}}`: 1.5e17, `{"hashrate":{"5m":null}}`: 0} {
		if got, err := parseRate([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{``, `{}`, `{"starting":true,"hashrate":{"5m":null}}`, `{"hashrate":{"5m":-1}}`, `{"hashrate":5}`} {
		if got, err := parseRate([]byte(text)); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestParseHashrate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{"100P": 1e17, "1.5 E": 1.5e18, "12": 12, "3k": 3000, "3K": 3000, "2T": 2e12} {
		if got, err := parseHashrate(text); err != nil || math.Abs(got/want-1) > 1e-12 {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "P", "-1P", "0", "NaN", "1e400", "100X", "100PP"} {
		if got, err := parseHashrate(text); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// FuzzAnswers reads what the user system, sources of quotes, statshttpd and jobmaker may say.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"err_no":0,"data":{"user_coin":{"alice":"btc"},"now_date":1600000000}}`))
	f.Add([]byte(`{"status":"success","message":"","data":{"puid":12}}`))
	f.Add([]byte(`{"time":1600000000,"coins":{"BTC":{"price":60000,"difficulty":1e14,"reward":3.125}}}`))
	f.Add([]byte(`{"algorithms":{"SHA256":{"coins":["BCH","BTC"]}}}`))
	f.Add([]byte(`{"hashrate":{"5m":1.5e17}}`))
	f.Add([]byte(`{"created_at":"","host":{},"subpool_name":"farm","old":{},"new":{"coinbase_info":"x","payout_addr":"y"},"success":true,"request_id":"z"}`))
	f.Add([]byte(`{"best":"btc","shares":{"btc":1},"id":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if m, err := parseMap(text, "user_coin"); err == nil && m.now < 0 {
			t.Fatalf("%+v", m)
		}
		if id, err := parseRegistered(text); err == nil && id <= 0 {
			t.Fatal(id)
		}
		if q, err := parseQuotes(text, "SHA256"); err == nil {
			for _, of := range q.of {
				if w := of.worth(); !(w >= 0) || math.IsInf(w, 0) {
					t.Fatalf("%+v is worth %v", of, w)
				}
			}
		}
		if rate, err := parseRate(text); err == nil && !(rate >= 0 && rate < 1e30) {
			t.Fatal(rate)
		}
		if c, err := parseChoice(text, AutoChain{Chains: []AutoOf{{Chain: "btc"}}}); err == nil && c.Shares.Of("alice") != "btc" {
			t.Fatalf("%+v", c)
		}
		if a, _, err := parseAck(text); err == nil {
			if _, err := json.Marshal(a); err != nil {
				t.Fatal(err)
			}
		}
	})
}
