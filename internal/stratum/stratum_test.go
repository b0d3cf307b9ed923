package stratum_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/google/go-cmp/cmp"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/share"
	"btcpool/internal/stratum"
	"btcpool/internal/testkit"
)

// requests returns the lines of testdata/requests.txt.
func requests(t testing.TB) [][]byte {
	t.Helper()
	return bytes.Split(bytes.TrimSuffix(testkit.Data(t, "requests.txt"), []byte("\n")), []byte("\n"))
}

func TestRequestsGolden(t *testing.T) {
	t.Parallel()
	var got []byte
	for _, line := range requests(t) {
		req, _, err := stratum.ParseRequest(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		got = req.AppendTo(got)
	}
	testkit.Golden(t, "requests.golden", got)
}

func hash(b byte) (h chainhash.Hash) {
	for i := range h {
		h[i] = b + byte(i)
	}
	return h
}

func testJob() *job.StratumJob {
	return &job.StratumJob{
		PrevHash:     hash(0x10),
		Coinbase1:    []byte{0x01, 0x00, 0x02},
		Coinbase2:    []byte{0xff, 0xee},
		MerkleBranch: []chainhash.Hash{hash(0x40), hash(0x80)},
		Version:      0x20000000,
		Bits:         0x1703a30c,
		Time:         0x655f0a1c,
	}
}

func TestMessagesGolden(t *testing.T) {
	t.Parallel()
	number, text := []byte("7"), []byte(`"a\"b"`)
	configure := func(params string) stratum.Configure {
		c, err := stratum.ParseConfigure([]byte(params))
		if err != nil {
			t.Fatalf("%s: %v", params, err)
		}
		return c
	}
	all := configure(`[["version-rolling","minimum-difficulty","subscribe-extranonce","info","<new>"],{"version-rolling.mask":"ffffffff","minimum-difficulty.value":2048}]`)
	none := configure(`[["version-rolling","minimum-difficulty"],{"version-rolling.mask":"00000001"}]`)
	j := testJob()
	notify := stratum.NewNotify(j, j.Coinbase1, j.Coinbase2)
	j.MerkleBranch = nil
	empty := stratum.NewNotify(j, j.Coinbase1, j.Coinbase2)

	var got []byte
	got = stratum.AppendSubscribed(got, number, 0x0100002a, 8)
	got = stratum.AppendTrue(got, text)
	got = stratum.AppendTrue(got, nil)
	got = stratum.AppendResult(got, number, `"pong"`)
	for status := share.StatusJobNotFoundOrStale; status <= share.StatusStale; status++ {
		got = stratum.AppendError(got, number, status)
	}
	got = stratum.AppendError(got, nil, share.StatusUnknown)
	got = stratum.AppendConfigured(got, number, all, all.Mask(0x1fffe000))
	got = stratum.AppendConfigured(got, number, none, none.Mask(0x1fffe000))
	got = stratum.AppendConfigured(got, number, stratum.Configure{}, 0)
	got = stratum.AppendSetVersionMask(got, 0x1fffe000)
	got = stratum.AppendSetDifficulty(got, 14)
	got = stratum.AppendSetDifficulty(got, 0)
	got = stratum.AppendSetDifficulty(got, -10)
	got = stratum.AppendSetDifficulty(got, bitcoin.MaxDifficulty)
	got = notify.AppendTo(got, 0, 0, true)
	got = notify.AppendTo(got, 255, 0, false)
	got = notify.AppendTo(got, 0, 1, false)
	got = empty.AppendTo(got, 1, 0, false)
	got = stratum.AppendCapabilities(got, text, nil, 1)
	got = stratum.AppendGetVersion(got)
	got = stratum.AppendReconnect(got, "", 0, 0)
	got = stratum.AppendReconnect(got, "pool.example", 3333, 5)
	testkit.Golden(t, "messages.golden", got)
}

func TestParseRequest(t *testing.T) {
	t.Parallel()
	deep := func(n int) string {
		return `{"id":1,"method":"m","params":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
	}
	for _, test := range []struct {
		name, line         string
		id, method, params string
		rest               string
		err                error
	}{
		{name: "any order, spaces", line: " { \"params\" : [ 1 ] ,\t\"id\" : 5 , \"method\" : \"m\" } \r", id: "5", method: "m", params: "[ 1 ]"},
		{name: "string id", line: `{"id":"x\u0041","method":"m","params":[]}`, id: `"x\u0041"`, method: "m", params: "[]"},
		{name: "negative and fractional ids", line: `{"id":-1.5e3,"method":"m"}`, id: "-1.5e3", method: "m"},
		{name: "an id of any kind", line: `{"id":[{"a":1}],"method":"m","params":[]}`, id: `[{"a":1}]`, method: "m", params: "[]"},
		{name: "id true", line: `{"id":true,"method":"m"}`, id: "true", method: "m"},
		{name: "id null", line: `{"id":null,"method":"m"}`, method: "m"},
		{name: "byte order mark", line: "\xef\xbb\xbf {\"id\":1,\"method\":\"m\"}", id: "1", method: "m"},
		{name: "zero bytes", line: "\x00{\"id\":1,\"method\":\"m\"}\x00 \x00", id: "1", method: "m"},
		{name: "another behind", line: `{"id":1,"method":"m"} {"id":2}`, id: "1", method: "m", rest: `{"id":2}`},
		{name: "something behind", line: `{"id":1,"method":"m"}x`, id: "1", method: "m", rest: "x"},
		{name: "an answer and a request", line: `{"id":1,"result":"x"}{"id":2}`, id: "1", err: stratum.ErrAnswer, rest: `{"id":2}`},
		{name: "null params", line: `{"id":1,"method":"m","params":null}`, id: "1", method: "m"},
		{name: "last key counts", line: `{"id":1,"id":2,"method":"a","method":"b","params":{},"params":[]}`, id: "2", method: "b", params: "[]"},
		{name: "unknown keys", line: `{"x":{"y":[true,false,null,-0.5]},"id":1,"method":"m"}`, id: "1", method: "m"},
		{name: "nested enough", line: deep(15), id: "1", method: "m", params: strings.Repeat("[", 15) + strings.Repeat("]", 15)},

		{name: "no method", line: `{"id":1,"params":[]}`, id: "1", params: "[]", err: stratum.ErrRequest},
		{name: "answer", line: `{"id":1,"result":"cgminer/4.11.1","error":null}`, id: "1", err: stratum.ErrAnswer},
		{name: "answer of an error", line: `{"error":[20,"no",null],"id":1}`, id: "1", err: stratum.ErrAnswer},
		{name: "method beside a result", line: `{"id":1,"result":null,"method":"m"}`, id: "1", method: "m"},
		{name: "empty method", line: `{"id":1,"method":"","params":[]}`, id: "1", params: "[]", err: stratum.ErrRequest},
		{name: "method is a number", line: `{"id":1,"method":3,"params":[]}`, id: "1", params: "[]", err: stratum.ErrRequest},
		{name: "params are an object", line: `{"id":1,"method":"m","params":{"a":1}}`, id: "1", method: "m", err: stratum.ErrRequest},
		{name: "params are a string", line: `{"id":1,"method":"m","params":"x"}`, id: "1", method: "m", err: stratum.ErrRequest},
		{name: "empty object", line: `{}`, err: stratum.ErrRequest},

		{name: "nothing", line: ``, err: stratum.ErrBlank},
		{name: "blanks", line: " \t\x00\xef\xbb\xbf\x00", err: stratum.ErrBlank},
		{name: "half a byte order mark", line: "\xef\xbb{}", err: stratum.ErrSyntax},
		{name: "zero byte inside", line: "{\x00\"id\":1,\"method\":\"m\"}", err: stratum.ErrSyntax},
		{name: "array", line: `[]`, err: stratum.ErrSyntax},
		{name: "half", line: `{"id":1,"method":"m`, err: stratum.ErrSyntax},
		{name: "no comma", line: `{"id":1 "method":"m"}`, err: stratum.ErrSyntax},
		{name: "comma at the end", line: `{"id":1,}`, err: stratum.ErrSyntax},
		{name: "comma in an array", line: `{"id":1,"method":"m","params":[1,]}`, err: stratum.ErrSyntax},
		{name: "leading zero", line: `{"id":01,"method":"m"}`, err: stratum.ErrSyntax},
		{name: "bad number", line: `{"id":1.,"method":"m"}`, err: stratum.ErrSyntax},
		{name: "bad escape", line: `{"id":"\x","method":"m"}`, err: stratum.ErrSyntax},
		{name: "bad unicode", line: `{"id":"\u00g0","method":"m"}`, err: stratum.ErrSyntax},
		{name: "control character", line: "{\"id\":\"\x01\",\"method\":\"m\"}", err: stratum.ErrSyntax},
		{name: "bad word", line: `{"id":nul,"method":"m"}`, err: stratum.ErrSyntax},
		{name: "nested too deep", line: deep(16), err: stratum.ErrSyntax},
		{name: "TLS", line: "\x16\x03\x01\x02\x00\x01", err: stratum.ErrSyntax},
		{name: "HTTP", line: "GET / HTTP/1.1", err: stratum.ErrSyntax},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			req, n, err := stratum.ParseRequest([]byte(test.line))
			if !errors.Is(err, test.err) {
				t.Fatalf("error %v, want %v", err, test.err)
			}
			if rest := test.line[n:]; rest != test.rest {
				t.Errorf("rest %q, want %q", rest, test.rest)
			}
			got := [3]string{string(req.ID), string(req.Method), string(req.Params)}
			if diff := cmp.Diff([3]string{test.id, test.method, test.params}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseSubmit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, params string
		size         int
		want         stratum.Submit
		err          error
	}{
		{
			name: "without version bits", params: `["w","3","00000000000000ff","655f0a1c","1a2b3c4d"]`, size: 8,
			want: stratum.Submit{Worker: []byte("w"), JobID: []byte("3"), ExtraNonce2: 0xff, Time: 0x655f0a1c, Nonce: 0x1a2b3c4d},
		},
		{
			name: "with version bits, upper case, spaces", params: `[ "w" , "a\"b", "FF00000000000000" ,"655F0A1C","1A2B3C4D","1fffe000" ]`, size: 8,
			want: stratum.Submit{Worker: []byte("w"), JobID: []byte(`a\"b`), ExtraNonce2: 0xff << 56, Time: 0x655f0a1c, Nonce: 0x1a2b3c4d, VersionBits: 0x1fffe000, Rolled: true},
		},
		{
			name: "more than six", params: `["w","3","0000000f","655f0a1c","1a2b3c4d","00000000",7,{}]`, size: 4,
			want: stratum.Submit{Worker: []byte("w"), JobID: []byte("3"), ExtraNonce2: 15, Time: 0x655f0a1c, Nonce: 0x1a2b3c4d, Rolled: true},
		},
		{name: "too few", params: `["w","3","00000000000000ff","655f0a1c"]`, size: 8, err: stratum.ErrParams},
		{name: "none", params: ``, size: 8, err: stratum.ErrParams},
		{name: "short extranonce2", params: `["w","3","0000000000000ff","655f0a1c","1a2b3c4d"]`, size: 8, err: stratum.ErrParams},
		{name: "long extranonce2", params: `["w","3","00000000000000ff00","655f0a1c","1a2b3c4d"]`, size: 8, err: stratum.ErrParams},
		{
			name: "no leading zeros", params: `["w","3","00000000000000ff","55f0a1c","0","2000"]`, size: 8,
			want: stratum.Submit{Worker: []byte("w"), JobID: []byte("3"), ExtraNonce2: 0xff, Time: 0x55f0a1c, VersionBits: 0x2000, Rolled: true},
		},
		{name: "long nonce", params: `["w","3","00000000000000ff","655f0a1c","01a2b3c4d"]`, size: 8, err: stratum.ErrParams},
		{name: "empty nonce", params: `["w","3","00000000000000ff","655f0a1c",""]`, size: 8, err: stratum.ErrParams},
		{name: "nonce is no hex", params: `["w","3","00000000000000ff","655f0a1c","1x2b3c4d"]`, size: 8, err: stratum.ErrParams},
		{name: "nonce is 0x", params: `["w","3","00000000000000ff","655f0a1c","0x"]`, size: 8, err: stratum.ErrParams},
		{name: "nonce is a number", params: `["w","3","00000000000000ff","655f0a1c",12345678]`, size: 8, err: stratum.ErrParams},
		{name: "nonce is null", params: `["w","3","00000000000000ff","655f0a1c",null]`, size: 8, err: stratum.ErrParams},
		{name: "job is null", params: `["w",null,"00000000000000ff","655f0a1c","1a2b3c4d"]`, size: 8, err: stratum.ErrParams},
		{name: "job is a list", params: `["w",[[["3"]]],"00000000000000ff","655f0a1c","1a2b3c4d"]`, size: 8, err: stratum.ErrParams},
		{name: "version bits are a number", params: `["w","3","00000000000000ff","655f0a1c","1a2b3c4d",8192]`, size: 8, err: stratum.ErrParams},
		{
			name: "empty version bits", params: `["w","3","00000000000000ff","655f0a1c","1a2b3c4d",""]`, size: 8,
			want: stratum.Submit{Worker: []byte("w"), JobID: []byte("3"), ExtraNonce2: 0xff, Time: 0x655f0a1c, Nonce: 0x1a2b3c4d},
		},
		{
			name: "null version bits", params: `[null,"3","00000000000000ff","655f0a1c","1a2b3c4d",null]`, size: 8,
			want: stratum.Submit{JobID: []byte("3"), ExtraNonce2: 0xff, Time: 0x655f0a1c, Nonce: 0x1a2b3c4d},
		},
		{
			name: "numbers where they are clear", params: `[7,3,"00000000000000ff","655f0a1c","1a2b3c4d"]`, size: 8,
			want: stratum.Submit{Worker: []byte("7"), JobID: []byte("3"), ExtraNonce2: 0xff, Time: 0x655f0a1c, Nonce: 0x1a2b3c4d},
		},
		{
			name: "0x before numbers", params: `["w","3","0x00000000000000ff","0X655f0a1c","0x2b3c4d","0x00802000"]`, size: 8,
			want: stratum.Submit{Worker: []byte("w"), JobID: []byte("3"), ExtraNonce2: 0xff, Time: 0x655f0a1c, Nonce: 0x2b3c4d, VersionBits: 0x802000, Rolled: true},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := stratum.ParseSubmit([]byte(test.params), test.size)
			if !errors.Is(err, test.err) {
				t.Fatalf("error %v, want %v", err, test.err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseGrandSubmit(t *testing.T) {
	t.Parallel()
	want := stratum.Submit{JobID: []byte("3"), ExtraNonce2: 0xff, Time: 0x655f0a1c, Nonce: 0x1a2b3c4d, Prefix: 0xdeadbeef}
	withWorker := want
	withWorker.Worker = []byte("w")
	for params, want := range map[string]stratum.Submit{
		`["deadbeef","3","00000000000000ff","655f0a1c","1a2b3c4d"]`:   want,
		`["0xdeadbeef","3","00000000000000ff","655f0a1c","1a2b3c4d"]`: want,
		`["w","3","deadbeef00000000000000ff","655f0a1c","1a2b3c4d"]`:  withWorker,
		`["w","3","00000000000000ff","655f0a1c","1a2b3c4d"]`:          {},
		`["deadbeef00","3","00000000000000ff","655f0a1c","1a2b3c4d"]`: {},
		`["deadbeef","3","ff","655f0a1c","1a2b3c4d"]`:                 {},
		`["w","3","xeadbeef00000000000000ff","655f0a1c","1a2b3c4d"]`:  {},
		`["deadbeef","3","00000000000000ff","655f0a1c"]`:              {},
	} {
		got, err := stratum.ParseGrandSubmit([]byte(params))
		if bad := want.JobID == nil; bad != errors.Is(err, stratum.ErrParams) {
			t.Errorf("%s: %v", params, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", params, diff)
		}
	}
}

func TestParseOtherParams(t *testing.T) {
	t.Parallel()
	type (
		two   struct{ a, b any }
		three struct{ a, b, c any }
	)
	parse := map[string]func([]byte) (any, error){
		"subscribe": func(p []byte) (any, error) {
			agent, session, resume := stratum.ParseSubscribe(p)
			return three{agent, session, resume}, nil
		},
		"get_capabilities": func(p []byte) (any, error) {
			list, err := stratum.ParseCapabilities(p)
			return strings.Join(list, " "), err
		},
		"authorize": func(p []byte) (any, error) {
			name, password, err := stratum.ParseAuthorize(p)
			return two{name, password}, err
		},
		"suggest_difficulty": func(p []byte) (any, error) { return stratum.ParseSuggestDifficulty(p) },
		"suggest_target":     func(p []byte) (any, error) { return stratum.ParseSuggestTarget(p) },
		"multi_version":      func(p []byte) (any, error) { return stratum.ParseMultiVersion(p) },
		"mask": func(p []byte) (any, error) {
			c, err := stratum.ParseConfigure(p)
			return c.Mask(0x1fffe000), err
		},
	}
	for _, test := range []struct {
		method, params string
		want           any // nil: an error
	}{
		{"subscribe", ``, three{"", uint32(0), false}},
		{"subscribe", `[]`, three{"", uint32(0), false}},
		{"subscribe", `[null]`, three{"", uint32(0), false}},
		{"subscribe", `["a\u002fb","id"]`, three{"a/b", uint32(0), false}},
		{"subscribe", `["a",null,"x"]`, three{"a", uint32(0), false}},
		{"subscribe", `["a","0100002A"]`, three{"a", uint32(0x0100002a), true}},
		{"subscribe", `[null,"0100002a"]`, three{"", uint32(0x0100002a), true}},
		{"subscribe", `["a","100002a"]`, three{"a", uint32(0), false}},
		{"get_capabilities", ``, ""},
		{"get_capabilities", `[["verrol","subres"]]`, "verrol subres"},
		{"get_capabilities", `[[]]`, ""},
		{"get_capabilities", `["subres"]`, nil},
		{"get_capabilities", `[[7]]`, nil},
		{"subscribe", `[7]`, three{"7", uint32(0), false}},
		{"subscribe", `[{"agent":"x"},7]`, three{"", uint32(0), false}},
		{"authorize", `["a.b","x"]`, two{"a.b", "x"}},
		{"authorize", `["a.b"]`, two{"a.b", ""}},
		{"authorize", `["a.b",null]`, two{"a.b", ""}},
		{"authorize", `[]`, nil},
		{"authorize", `[null,"x"]`, nil},
		{"authorize", `["a",1]`, two{"a", "1"}},
		{"authorize", `["a",{"d":1}]`, two{"a", ""}},
		{"authorize", `[12345,"x"]`, two{"12345", "x"}},
		{"authorize", `[["a"],"x"]`, nil},
		{"suggest_difficulty", `[1024]`, bitcoin.Difficulty(10)},
		{"suggest_difficulty", `[1025.5]`, bitcoin.Difficulty(11)},
		{"suggest_difficulty", `["65,536"]`, bitcoin.Difficulty(16)},
		{"suggest_difficulty", `["500K"]`, bitcoin.Difficulty(19)},
		{"suggest_difficulty", `["inf"]`, nil},
		{"suggest_difficulty", `["+Infinity"]`, nil},
		{"suggest_difficulty", `["NaN"]`, nil},
		{"suggest_difficulty", `["0.001"]`, bitcoin.Difficulty(-9)},
		{"suggest_difficulty", `[1e300]`, bitcoin.MaxDifficulty},
		{"suggest_difficulty", `[0]`, nil},
		{"suggest_difficulty", `[-1]`, nil},
		{"suggest_difficulty", `["NaN"]`, nil},
		{"suggest_difficulty", `["1e999"]`, nil},
		{"suggest_difficulty", `[true]`, nil},
		{"suggest_difficulty", `[]`, nil},
		{"suggest_target", `["00000000ffff0000000000000000000000000000000000000000000000000000"]`, bitcoin.Difficulty(0)},
		{"suggest_target", `["FFFF0000000000000000000000000000000000000000000000000000"]`, bitcoin.Difficulty(0)},
		{"suggest_target", `["0000000000ffff00000000000000000000000000000000000000000000000000"]`, bitcoin.Difficulty(8)},
		{"suggest_target", `["1"]`, bitcoin.MaxDifficulty},
		{"suggest_target", `["0xffff0000000000000000000000000000000000000000000000000000"]`, bitcoin.Difficulty(0)},
		{"suggest_target", `["0x"]`, nil},
		{"suggest_target", `["0"]`, nil},
		{"suggest_target", `[""]`, nil},
		{"suggest_target", `["x"]`, nil},
		{"suggest_target", `["` + strings.Repeat("f", 65) + `"]`, nil},
		{"multi_version", `[536862720]`, uint32(0x1fffe000)},
		{"multi_version", `[-1]`, nil},
		{"multi_version", `["4"]`, uint32(4)},
		{"multi_version", `["0x4"]`, nil},
		{"mask", `[["version-rolling"],{"version-rolling.mask":"ffffffff","version-rolling.min-bit-count":16}]`, uint32(0x1fffe000)},
		{"mask", `[["version-rolling"],{"version-rolling.mask":"00006000","version-rolling.min-bit-count":2}]`, uint32(0x6000)},
		{"mask", `[["version-rolling"],{"version-rolling.mask":"00006000","version-rolling.min-bit-count":3}]`, uint32(0)},
		{"mask", `[["version-rolling"],{}]`, uint32(0x1fffe000)},
		{"mask", `[["version-rolling"]]`, uint32(0x1fffe000)},
		{"mask", `[["version-rolling"],{"version-rolling.mask":24576}]`, uint32(0x6000)},
		{"mask", `[["version-rolling"],{"version-rolling.mask":true}]`, uint32(0)},
		{"mask", `[["version-rolling"],{"version-rolling.mask":"0x1fffe000"}]`, uint32(0x1fffe000)},
		{"mask", `[["version-rolling"],{"version-rolling.mask":"00006000","version-rolling.min-bit-count":"3"}]`, uint32(0)},
		{"mask", `[["info"],{"version-rolling.mask":"ffffffff"}]`, uint32(0)},
		{"mask", `[]`, nil},
		{"mask", `["version-rolling",{}]`, uint32(0x1fffe000)},
		{"mask", `[["version-rolling"],[]]`, uint32(0x1fffe000)},
		{"mask", `[["version-rolling"],null]`, uint32(0x1fffe000)},
		{"mask", `[["version-rolling"],[1]]`, nil},
		{"mask", `[["version-rolling"],"x"]`, nil},
		{"mask", `[[1],{}]`, nil},
	} {
		t.Run(test.method+" "+test.params, func(t *testing.T) {
			t.Parallel()
			got, err := parse[test.method]([]byte(test.params))
			switch {
			case test.want == nil && !errors.Is(err, stratum.ErrParams):
				t.Errorf("got %v, error %v", got, err)
			case test.want != nil && (err != nil || got != test.want):
				t.Errorf("got %v, error %v, want %v", got, err, test.want)
			}
		})
	}
}
