package stratum_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/bitcoin"
	"btcpool/internal/stratum"
	"btcpool/internal/testkit"
)

// The client's half.

// poolLines returns the lines of testdata/pools.txt: what pools send.
func poolLines(t testing.TB) [][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/pools.txt")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
}

// describe says what a message of a pool means.
func describe(m stratum.Message) string {
	text := func(values ...any) string { return fmt.Sprintf("%s %v", m.Method, values) }
	switch string(m.Method) {
	case "mining.notify":
		var j stratum.Job
		err := j.Parse(m.Params)
		return text(string(j.ID), j.PrevHash, fmt.Sprintf("%x %x %v", j.Coinbase1, j.Coinbase2, j.Branch),
			fmt.Sprintf("%08x %08x %08x", j.Version, j.Bits, j.Time), j.Clean, err)
	case "mining.set_difficulty":
		d, err := stratum.ParseSetDifficulty(m.Params)
		return text(d, err)
	case "mining.set_extranonce":
		extraNonce1, size, err := stratum.ParseSetExtranonce(m.Params)
		return text(fmt.Sprintf("%x", extraNonce1), size, err)
	case "mining.set_version_mask":
		mask, err := stratum.ParseSetVersionMask(m.Params)
		return text(fmt.Sprintf("%08x", mask), err)
	case "client.reconnect":
		host, port, wait, err := stratum.ParseReconnect(m.Params)
		return text(host, port, wait, err)
	case "client.show_message":
		message, ok := stratum.ParseShowMessage(m.Params)
		return text(fmt.Sprintf("%q", message), ok)
	case "":
		id, ok := m.Number()
		code, refusal, refused := m.Refusal()
		answer := fmt.Sprintf("answer %d %t: ", id, ok)
		switch {
		case !refused:
			return answer + "true"
		case m.Error != nil:
			return answer + fmt.Sprintf("error %d %q", code, refusal)
		case bytes.HasPrefix(m.Result, []byte("[")):
			extraNonce1, size, err := stratum.ParseSubscribed(m.Result)
			return answer + fmt.Sprintf("extranonce1 %x, size %d, %v, session %q", extraNonce1, size, err, stratum.ParseSession(m.Result))
		case bytes.HasPrefix(m.Result, []byte("{")):
			mask, granted, err := stratum.ParseConfigured(m.Result, math.MaxUint32)
			return answer + fmt.Sprintf("mask %08x %t, %v", mask, granted, err)
		}
		return answer + refusal
	}
	return text(fmt.Sprintf("%s %s", m.ID, m.Params))
}

func TestPoolsGolden(t *testing.T) {
	t.Parallel()
	var got []byte
	for _, line := range poolLines(t) {
		m, err := stratum.ParseMessage(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		got = append(got, describe(m)+"\n"...)
	}
	testkit.Golden(t, "pools.golden", got)
}

func TestClientGolden(t *testing.T) {
	t.Parallel()
	floor := bitcoin.Difficulty(-2)
	var got []byte
	got = stratum.AppendConfigure(got, 1, stratum.Configure{Extensions: []string{stratum.VersionRolling}, VersionMask: 0x1fffe000, MinBitCount: 2})
	got = stratum.AppendConfigure(got, 2, stratum.Configure{
		Extensions: []string{stratum.MinimumDifficulty, stratum.VersionRolling}, VersionMask: math.MaxUint32, MinimumDifficulty: &floor,
	})
	got = stratum.AppendConfigure(got, 3, stratum.Configure{Extensions: []string{stratum.Info}})
	got = stratum.AppendSubscribe(got, 4, "test/1", "")
	got = stratum.AppendSubscribe(got, 5, "<test>", "0100002a")
	got = stratum.AppendAuthorize(got, 6, "u\"ser.worker", "d=1024")
	submit := stratum.Submit{
		Worker: stratum.Escape("u\"ser.w"), JobID: []byte(`\u0031`), ExtraNonce2: 0xab, Time: 0x655f0a1c, Nonce: 0x1a2b, VersionBits: 0x2000,
	}
	got = stratum.AppendSubmit(got, 8, submit, 4)
	submit.Rolled = true
	got = stratum.AppendSubmit(got, math.MaxUint64, submit, 12)
	got = stratum.AppendVersion(got, []byte(`"a"`), "test/1")
	got = stratum.AppendAnswer(got, []byte("9"), "null", `[20,"Unknown method",null]`)
	testkit.Golden(t, "client.golden", got)
}

func TestParseMessageErrors(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		``:                           "not a JSON object",
		`[]`:                         "not a JSON object",
		`{"id":1`:                    "not a JSON object",
		`{"id":1,}`:                  "not a JSON object",
		`{"id":1} {}`:                "not a JSON object",
		strings.Repeat("[", 1000):    "not a JSON object",
		`{"method":7}`:               "method is not a string",
		`{"method":["mining.ping"]}`: "method is not a string",
		`{"id":[1],"result":true}`:   "id is not a short number or string",
		`{"id":{},"method":"m"}`:     "id is not a short number or string",
		`{"id":"` + strings.Repeat("1", 63) + `"}`: "id is not a short number or string",
	} {
		if m, err := stratum.ParseMessage([]byte(line)); err == nil || err.Error() != want {
			t.Errorf("%s: %+v, error %v, want %q", line, m, err, want)
		}
	}
}

func TestPoolParamsErrors(t *testing.T) {
	t.Parallel()
	parse := map[string]func([]byte) error{
		"notify":           func(p []byte) error { return new(stratum.Job).Parse(p) },
		"set_difficulty":   func(p []byte) error { _, err := stratum.ParseSetDifficulty(p); return err },
		"set_extranonce":   func(p []byte) error { _, _, err := stratum.ParseSetExtranonce(p); return err },
		"set_version_mask": func(p []byte) error { _, err := stratum.ParseSetVersionMask(p); return err },
		"reconnect":        func(p []byte) error { _, _, _, err := stratum.ParseReconnect(p); return err },
		"subscribed":       func(p []byte) error { _, _, err := stratum.ParseSubscribed(p); return err },
		"configured":       func(p []byte) error { _, _, err := stratum.ParseConfigured(p, 1); return err },
	}
	zeros := `"` + strings.Repeat("0", 64) + `"`
	good := `["j",` + zeros + `,"01","02",[],"20000000","1d00ffff","65000000",true]`
	if err := parse["notify"]([]byte(good)); err != nil {
		t.Fatal(err)
	}
	notify := func(old, replacement string) string { return strings.Replace(good, old, replacement, 1) }
	for _, test := range []struct{ method, params, want string }{
		{"notify", ``, "0 parameters, want 9"},
		{"notify", notify(`,true`, ``), "8 parameters, want 9"},
		{"notify", notify(`"j"`, `5`), "job id is not a string of at most 256 bytes"},
		{"notify", notify(`j`, strings.Repeat("j", 257)), "job id is not a string of at most 256 bytes"},
		{"notify", notify(`00"`, `0"`), "previous hash: not a string of 64 hex digits"},
		{"notify", notify(`00"`, `0x"`), "previous hash: encoding/hex: invalid byte: U+0078 'x'"},
		{"notify", notify(`"01"`, `"0"`), "coinbase 1: not hex"},
		{"notify", notify(`"02"`, `2`), "coinbase 2: not a string"},
		{"notify", notify(`[]`, `{}`), "merkle branch is not an array"},
		{"notify", notify(`[]`, `[`+zeros+`,"00"]`), "merkle branch: not a string of 64 hex digits"},
		{"notify", notify(`[]`, `[`+strings.Repeat(zeros+`,`, 32)+zeros+`]`), "merkle branch of more than 32 hashes"},
		{"notify", notify(`"20000000"`, `"2000000"`), "version: not a string of 8 hex digits"},
		{"notify", notify(`"1d00ffff"`, `486604799`), "bits: not a string of 8 hex digits"},
		{"notify", notify(`"65000000"`, `"6500000x"`), "time: not a string of 8 hex digits"},
		{"notify", notify(`true`, `1`), "clean flag is not a boolean"},
		{"set_difficulty", `[]`, "difficulty is not a number"},
		{"set_difficulty", `["1"]`, "difficulty is not a number"},
		{"set_difficulty", `[0]`, "difficulty 0 is not above zero"},
		{"set_difficulty", `[-1]`, "difficulty -1 is not above zero"},
		{"set_difficulty", `[1e999]`, "difficulty 1e999 is not above zero"},
		{"set_extranonce", `["00"]`, "extranonce1 or the size of extranonce2 is missing"},
		{"set_extranonce", `["0",4]`, "extranonce1: not hex"},
		{"set_extranonce", `["` + strings.Repeat("00", 65) + `",4]`, "extranonce1 of 65 bytes, at most 64"},
		{"set_extranonce", `["00",0]`, "extranonce2 size 0 is not a whole number from 1 to 32"},
		{"set_extranonce", `["00",33]`, "extranonce2 size 33 is not a whole number from 1 to 32"},
		{"set_extranonce", `["00",1.5]`, "extranonce2 size 1.5 is not a whole number from 1 to 32"},
		{"set_extranonce", `["00","4"]`, `extranonce2 size "4" is not a whole number from 1 to 32`},
		{"set_version_mask", `[]`, "not a string of 8 hex digits"},
		{"set_version_mask", `["1"]`, "not a string of 8 hex digits"},
		{"reconnect", `["",70000]`, "port 70000 is not a number up to 65535"},
		{"reconnect", `["",-1]`, "port -1 is not a number up to 65535"},
		{"reconnect", `["",""]`, `port "" is not a number up to 65535`},
		{"subscribed", `null`, "result is not [subscriptions, extranonce1, extranonce2 size]"},
		{"subscribed", `[[],"00"]`, "result is not [subscriptions, extranonce1, extranonce2 size]"},
		{"subscribed", `{"a":1,"b":"00","c":4}`, "result is not [subscriptions, extranonce1, extranonce2 size]"},
		{"configured", `{"version-rolling":true,"version-rolling.mask":"1"}`, "version-rolling.mask: not a string of 8 hex digits"},
	} {
		if err := parse[test.method]([]byte(test.params)); err == nil || err.Error() != test.want {
			t.Errorf("%s %s: error %v, want %q", test.method, test.params, err, test.want)
		}
	}
}

// Parse takes the place of what the job held before, in its memory.
func TestJobIsReused(t *testing.T) {
	t.Parallel()
	var lines [][]byte
	for _, line := range poolLines(t) {
		if bytes.Contains(line, []byte("mining.notify\"")) && bytes.Contains(line, []byte("method")) {
			lines = append(lines, line)
		}
	}
	var reused stratum.Job
	for i := range 2 * len(lines) {
		line := bytes.Clone(lines[i%len(lines)])
		m, err := stratum.ParseMessage(line)
		if err != nil {
			t.Fatal(err)
		}
		var fresh stratum.Job
		if err := fresh.Parse(m.Params); err != nil {
			t.Fatal(err)
		}
		if err := reused.Parse(m.Params); err != nil {
			t.Fatal(err)
		}
		clear(line)
		if diff := cmp.Diff(fresh, reused, emptyIsNil); diff != "" {
			t.Error(diff)
		}
	}
}
