package job_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/testkit"
)

func TestRawGBT(t *testing.T) {
	t.Parallel()
	fromPool := job.NewRawGBT([]byte("{}\n"), time.Unix(1<<32-1, 0))
	fromPool.FromPool = `other "pool"`
	left := job.NewRawGBT([]byte("{}\n"), time.Unix(1713571901, 0))
	left.Left = chainhash.Hash{1, 2, 3}
	work := job.NewRawGBT([]byte("{}\n"), time.Unix(1713571901, 0))
	work.Work = bitcoin.Work{Hi: 1, Lo: 0xabcdef}
	for _, tt := range []struct {
		golden string
		raw    job.RawGBT
	}{
		{"core.rawgbt", job.NewRawGBT(testkit.Data(t, "core.gbt"), time.Unix(1713571901, 999))},
		{"frompool.rawgbt", fromPool},
		{"left.rawgbt", left},
		{"work.rawgbt", work},
	} {
		t.Run(tt.golden, func(t *testing.T) {
			t.Parallel()
			text := tt.raw.AppendTo(nil)
			testkit.Golden(t, tt.golden, text)
			got, err := job.ParseRawGBT(text)
			if diff := cmp.Diff(tt.raw, got); err != nil || diff != "" {
				t.Errorf("read back: %v\n%s", err, diff)
			}
		})
	}
}

func TestParseRawGBTRefuses(t *testing.T) {
	t.Parallel()
	valid := string(job.NewRawGBT([]byte("{}\n"), time.Unix(1713571901, 0)).AppendTo(nil))
	replace := func(old, with string) string {
		if !strings.Contains(valid, old) {
			t.Fatalf("%s has no %s", valid, old)
		}
		return strings.Replace(valid, old, with, 1)
	}
	for _, tt := range []struct{ name, in, want string }{
		{"unchanged", valid, ""},
		{"unknown key", replace(`{`, `{"new":[{}],`), ""},
		{"escapes", replace("e30K", `e\u00330K`), ""},
		{"empty", "", "not valid JSON"},
		{"not JSON", "created_at_ts", "not valid JSON"},
		{"cut", valid[:len(valid)-1], "not valid JSON"},
		{"two values", valid + valid, "not valid JSON"},
		{"array", "[]", "not an object"},
		{"null", "null", "not an object"},
		{"too deep", strings.Repeat("[", 1<<20), "nested deeper"},
		{"brackets in strings", replace(`{`, `{"x":"`+strings.Repeat(`[\"\\`, 100)+`",`), ""},
		{"time missing", replace("created_at_ts", "created"), "created_at_ts"},
		{"time is text", replace("1713571901", `"1713571901"`), "created_at_ts"},
		{"time with a fraction", replace("1713571901", "1713571901.5"), "created_at_ts"},
		{"negative time", replace("1713571901", "-1"), "created_at_ts"},
		{"time after 2106", replace("1713571901", "4294967296"), "created_at_ts"},
		{"template missing", replace("block_template_base64", "x"), "block_template_base64"},
		{"template is no base64", replace("e30K", "e30*"), "block_template_base64"},
		{"template without padding", replace("e30K", "e30"), "block_template_base64"},
		{"another template", replace("e30K", "e31K"), "not the hash"},
		{"hash missing", replace("gbthash", "x"), "gbthash"},
		{"left block is a number", replace(`{`, `{"left_block":1,`), "left_block"},
		{"work is a number", replace(`{`, `{"chainwork":1,`), "chainwork"},
		{"work is short", replace(`{`, `{"chainwork":"0001",`), "chainwork"},
		{"work of 129 bits", replace(`{`, `{"chainwork":"`+strings.Repeat("0", 31)+"1"+strings.Repeat("0", 32)+`",`), "chainwork"},
		{"work has a sign", replace(`{`, `{"chainwork":"`+strings.Repeat("0", 32)+"+"+strings.Repeat("0", 31)+`",`), "chainwork"},
		{"pool is a number", replace(`{`, `{"from_pool":1,`), "from_pool"},
		{"too many keys", replace(`{`, `{`+manyKeys(1000)), "more than 256 keys"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := job.ParseRawGBT([]byte(tt.in))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if err != nil && got.Response != nil {
				t.Error("half a value beside the error")
			}
		})
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`"k` + strings.Repeat("k", i) + `":0,`)
	}
	return b.String()
}

func FuzzParseRawGBT(f *testing.F) {
	testkit.Seeds(f, "*.rawgbt")
	f.Fuzz(func(t *testing.T, in []byte) {
		raw, err := job.ParseRawGBT(in)
		if err != nil {
			return
		}
		if !bytes.Contains(in, base64.StdEncoding.AppendEncode(nil, raw.Response)) && !bytes.Contains(in, []byte{'\\'}) {
			t.Fatalf("%q does not hold %q", in, raw.Response)
		}
		again, err := job.ParseRawGBT(raw.AppendTo(nil))
		if diff := cmp.Diff(raw, again); err != nil || diff != "" {
			t.Fatalf("%q is not stable: %v\n%s", in, err, diff)
		}
	})
}

// A name does not depend on how the response came.
func TestNaming(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		response := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "response")
		naming := job.NewNaming()
		for end := 0; end < len(response); {
			end = rapid.IntRange(end, len(response)).Draw(t, "arrived")
			naming.Arrived(bytes.Clone(response[:end])) // memory moves as it grows
		}
		naming.End()
		if got, want := naming.Name(), job.NewRawGBT(response, time.Now()).Hash; got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	})
}
