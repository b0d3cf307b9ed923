package store

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

func TestFormatDetail(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		detail map[share.Status]bitcoin.Work
		want   string
	}{
		{"nothing", nil, ""},
		{"greatest first", map[share.Status]bitcoin.Work{22: difficultyWork(678), 23: difficultyWork(12345)}, `{"23":12345,"22":678}`},
		{"less than difficulty 1", map[share.Status]bitcoin.Work{23: {Lo: 1}}, `{"23":0}`},
		{"most", map[share.Status]bitcoin.Work{1<<31 - 1: {Hi: 1<<64 - 1}}, `{"2147483647":18446744073709551615}`},
	} {
		if got := FormatDetail(test.detail); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

// What was read can be written, fits the column, is JSON, and reads the same as far as it goes.
func FuzzDetail(f *testing.F) {
	f.Add("")
	f.Add(`{"23":12345,"22":678}`)
	f.Add("{" + strings.Repeat(`"1":2,`, 60) + `"3":18446744073709551615}`)
	f.Fuzz(func(t *testing.T, text string) {
		detail := parseDetail(text)
		again := FormatDetail(detail)
		if len(again) > maxDetail || again != "" && !json.Valid([]byte(again)) {
			t.Fatalf("%q became %q", text, again)
		}
		for code, w := range parseDetail(again) {
			if w != detail[code] {
				t.Fatalf("%q: %d is %s in %q", text, code, w, again)
			}
		}
	})
}

func TestDecimals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		n     *big.Int
		scale int
		want  string
	}{
		{nil, 25, "0"},
		{big.NewInt(-1), 25, "0"},
		{big.NewInt(1), 25, "0.0000000000000000000000001"},
		{big.NewInt(0), 0, "0"},
		{big.NewInt(12345), 0, "12345"},
		{new(big.Int).Exp(big.NewInt(10), big.NewInt(25), nil), 25, "1.0000000000000000000000000"},
	} {
		got := formatDecimal(test.n, test.scale)
		if got != test.want {
			t.Errorf("%v·10^-%d is %s, want %s", test.n, test.scale, got, test.want)
		}
		if test.n != nil && test.n.Sign() >= 0 {
			if diff := cmp.Diff(test.n.String(), parseDecimal(got, test.scale).String()); diff != "" {
				t.Errorf("%s: %s", got, diff)
			}
		}
	}
	for text, want := range map[string]string{"0.5": "50", "7": "700", "1.239": "123", "": "0", "abc": "0"} {
		if got := parseDecimal(text, 2).String(); got != want {
			t.Errorf("%q is %s hundredths, want %s", text, got, want)
		}
	}
}
