package job_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"
	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/testkit"
)

// The answers in testdata have the shape of Bitcoin Core 27 (core, empty), of btcd 0.26 (btcd) and of a node before BIP
// 141 (old). Their transactions are mainnet's first and the P2WPKH example of BIP 143.
func TestParseTemplate(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"core", "empty", "btcd", "old"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			response := testkit.Data(t, name+".gbt")
			template, err := job.ParseTemplate(response)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.MarshalIndent(template, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			testkit.Golden(t, name+".template", append(text, '\n'))
			if template.Empty() != (name == "empty") {
				t.Errorf("Empty() = %v", template.Empty())
			}

			height, txs, err := job.TemplateTransactions(response)
			if err != nil || height != template.Height {
				t.Fatalf("height %d, want %d: %v", height, template.Height, err)
			}
			var data []string
			for _, tx := range gjson.GetBytes(response, "result.transactions.#.data").Array() {
				data = append(data, tx.Str)
			}
			var got []string
			for _, tx := range txs {
				got = append(got, hex.EncodeToString(tx))
			}
			if diff := cmp.Diff(data, got); diff != "" {
				t.Errorf("transactions:\n%s", diff)
			}
		})
	}
}

// edit returns a response with some keys of its result replaced; a nil value removes the key.
func edit(t testing.TB, response []byte, changes map[string]any) []byte {
	t.Helper()
	var answer map[string]any
	if err := json.Unmarshal(response, &answer); err != nil {
		t.Fatal(err)
	}
	result := answer["result"].(map[string]any)
	for key, value := range changes {
		if value == nil {
			delete(result, key)
		} else {
			result[key] = value
		}
	}
	b, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What nodes leave out is computed, and comes out as other nodes give it.
func TestParseTemplateComputes(t *testing.T) {
	t.Parallel()
	core := testkit.Data(t, "core.gbt")
	want, err := job.ParseTemplate(core)
	if err != nil {
		t.Fatal(err)
	}
	var bare []any
	for _, tx := range gjson.GetBytes(core, "result.transactions.#.data").Array() {
		bare = append(bare, map[string]any{"data": tx.Str})
	}
	for name, changes := range map[string]map[string]any{
		"commitment from the list's hashes": {"default_witness_commitment": nil},
		"commitment and ids from data":      {"default_witness_commitment": nil, "transactions": bare},
		"bare commitment":                   {"default_witness_commitment": hex.EncodeToString(want.WitnessCommitment[6:])},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := job.ParseTemplate(edit(t, core, changes))
			want := *want
			if changes["transactions"] != nil {
				want.Weight = 0 // which the node does not say then
			}
			if diff := cmp.Diff(&want, got); err != nil || diff != "" {
				t.Errorf("error %v\n%s", err, diff)
			}
		})
	}
}

func TestParseTemplateRefuses(t *testing.T) {
	t.Parallel()
	core := testkit.Data(t, "core.gbt")
	transaction := func(key string, value any) any {
		tx := map[string]any{"data": "00", "txid": strings.Repeat("0", 64), "hash": strings.Repeat("0", 64)}
		tx[key] = value
		return []any{tx}
	}
	for _, tt := range []struct {
		name  string
		key   string
		value any
		want  string // a part of the error, "" for none
	}{
		{"nothing changed", "unknown", 1, ""},
		{"no height", "height", nil, "height"},
		{"height zero", "height", 0, "height"},
		{"height beyond 31 bits", "height", 1 << 31, "height"},
		{"height as text", "height", "840001", "height"},
		{"no previous hash", "previousblockhash", nil, "previousblockhash"},
		{"short previous hash", "previousblockhash", "00", "previousblockhash"},
		{"no bits", "bits", nil, "bits"},
		{"bits as a number", "bits", 1, "bits"},
		{"bits without a target", "bits", "00000000", "bits"},
		{"long bits", "bits", "1170342190", "bits"},
		{"no time", "curtime", nil, "curtime"},
		{"negative time", "curtime", -1, "curtime"},
		{"odd earliest time", "mintime", "x", "mintime"},
		{"no version", "version", nil, "version"},
		{"large version", "version", 1 << 31, "version"},
		{"negative version", "version", -1, ""},
		{"no coinbase value", "coinbasevalue", nil, "coinbasevalue"},
		{"more than all money", "coinbasevalue", 21e14 + 1, "coinbasevalue"},
		{"coinbaseaux as a list", "coinbaseaux", []any{}, "coinbaseaux"},
		{"coinbaseaux not hex", "coinbaseaux", map[string]any{"flags": "x"}, "coinbaseaux"},
		{"commitment not hex", "default_witness_commitment", "6a24", "default_witness_commitment"},
		{"commitment of another kind", "default_witness_commitment", strings.Repeat("6a", 38), "default_witness_commitment"},
		{"commitment as a number", "default_witness_commitment", 1, "default_witness_commitment"},
		{"long poll id as a number", "longpollid", 1, "longpollid"},
		{"rules as text", "rules", "segwit", "rules"},
		{"rules of numbers", "rules", []any{1}, "rules"},
		{"a new rule", "rules", []any{"new"}, ""},
		{"signet", "rules", []any{"segwit", "!signet"}, ""},
		{"signet of anyone", "signet_challenge", "51", ""},
		{"a rule that must be understood", "rules", []any{"!new"}, `"!new" must be understood`},
		{"no transactions", "transactions", nil, "transactions: not an array"},
		{"a transaction that is a number", "transactions", []any{1}, "transactions[0]"},
		{"short txid", "transactions", transaction("txid", "00"), "transactions[0]: txid"},
		{"txid as a number", "transactions", transaction("txid", 1), "transactions[0]: txid"},
		{"hash not hex", "transactions", transaction("hash", strings.Repeat("x", 64)), "transactions[0]: hash"},
		{"ids without data", "transactions", []any{map[string]any{"txid": strings.Repeat("0", 64), "hash": strings.Repeat("0", 64)}}, "transactions[0]: data"},
		{"empty data with ids", "transactions", []any{map[string]any{"data": "", "txid": strings.Repeat("0", 64), "hash": strings.Repeat("0", 64)}}, "transactions[0]: data: empty"},
		{"half a byte with ids", "transactions", []any{map[string]any{"data": "000", "txid": strings.Repeat("0", 64), "hash": strings.Repeat("0", 64)}}, "transactions[0]: data"},
		{"data that is no transaction", "transactions", []any{map[string]any{"data": "00"}}, "transactions[0]: data"},
		{"too many transactions", "transactions", make([]int, 20_000), "transactions"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := job.ParseTemplate(edit(t, core, map[string]any{tt.key: tt.value}))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if err != nil && got != nil {
				t.Error("a value beside the error")
			}
		})
	}
}

func TestParseTemplateResponse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, in, want string }{
		{"error", `{"result":null,"error":{"code":-10,"message":"Bitcoin is downloading blocks..."},"id":1}`, "downloading blocks"},
		{"no result", `{"error":null,"id":1}`, "result: not an object"},
		{"empty", ``, "not valid JSON"},
		{"page", `<html>`, "not valid JSON"},
		{"deep", strings.Repeat(`{"result":`, 1<<20), "nested deeper"},
		{"trailing text", `{"result":{}} x`, "not valid JSON"},
		{"no JSON behind a wrong transaction", `{"result":{"transactions":[1]},}`, "not valid JSON"},
		{"no JSON in a transaction", `{"result":{"transactions":[{"data":00}]}}`, "not valid JSON"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := job.ParseTemplate([]byte(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ParseTemplate: %v, want %q", err, tt.want)
			}
			if _, _, err := job.TemplateTransactions([]byte(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("TemplateTransactions: %v, want %q", err, tt.want)
			}
		})
	}
}

// The last one counts where a key is repeated, and a key may be written with escapes.
func TestParseTemplateRepeats(t *testing.T) {
	t.Parallel()
	core := string(testkit.Data(t, "core.gbt"))
	want, err := job.ParseTemplate([]byte(core))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"result":       strings.Replace(core, `"result"`, `"result":{"height":1,"transactions":[1]},"result"`, 1),
		"transactions": strings.Replace(core, `"transactions"`, `"transactions":[{"data":"00"}],"transactions"`, 1),
		"escapes":      strings.Replace(core, `"height"`, `"\u0068eight"`, 1),
		"more escapes": strings.NewReplacer(`"result"`, `"r\u0065sult"`, `"transactions"`, `"transaction\u0073"`).Replace(core),
	} {
		if text == core {
			t.Fatalf("%s: nothing replaced", name)
		}
		got, err := job.ParseTemplate([]byte(text))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
}

func TestCheckNetwork(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		network string
		change  func(*job.Template)
		want    string // a part of the error, "" for none
	}{
		{"mainnet", func(*job.Template) {}, ""},
		{"regtest", func(*job.Template) {}, ""},
		{"signet", func(*job.Template) {}, ""},
		{"mainnet", func(t *job.Template) { t.Bits = 0x1d00ffff }, ""},
		{"mainnet", func(t *job.Template) { t.Bits = 0x1d010000 }, "not of mainnet: bits 1d010000 are easier than 1d00ffff"},
		{"mainnet", func(t *job.Template) { t.Bits = 0x207fffff }, "not of mainnet"},
		{"regtest", func(t *job.Template) { t.Bits = 0x207fffff }, ""},
		{"mainnet", func(t *job.Template) { t.Height = 810_000 }, "not of mainnet: height 810000 is in its past"},
		{"mainnet", func(t *job.Template) { t.Height = 810_001 }, ""},
		{"regtest", func(t *job.Template) { t.Height = 1 }, ""},
		{"mainnet", func(t *job.Template) { t.Rules = []string{"csv", "!signet"} }, "of a signet"},
		{"signet", func(t *job.Template) { t.Rules = []string{"csv", "!signet"} }, ""},
	} {
		network, err := bitcoin.NetworkByName(tt.network)
		if err != nil {
			t.Fatal(err)
		}
		template := &job.Template{Height: 900_000, Bits: 0x17034219, Rules: []string{"csv", "!segwit"}}
		tt.change(template)
		err = template.CheckNetwork(network)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: height %d, bits %08x, rules %s: %v, want %q", tt.network, template.Height, template.Bits, template.Rules, err, tt.want)
		}
	}
}

func TestTemplateTransactionsRefuses(t *testing.T) {
	t.Parallel()
	core := testkit.Data(t, "core.gbt")
	for name, list := range map[string]any{
		"no list": nil,
		"no data": []any{map[string]any{"txid": "00"}},
		"not hex": []any{map[string]any{"data": "0"}},
		"empty":   []any{map[string]any{"data": ""}},
		"number":  []any{map[string]any{"data": 1}},
	} {
		if _, txs, err := job.TemplateTransactions(edit(t, core, map[string]any{"transactions": list})); err == nil || txs != nil {
			t.Errorf("%s: %d transactions, error %v", name, len(txs), err)
		}
	}
	if _, _, err := job.TemplateTransactions(edit(t, core, map[string]any{"height": nil})); err == nil || !strings.Contains(err.Error(), "height") {
		t.Errorf("no height: %v", err)
	}
}

// What is made without transactions is read back.
func TestEmptyResponse(t *testing.T) {
	t.Parallel()
	const example = `{"result":{"height":840001,"previousblockhash":"00000000000000000000000000000000000000000000000000000000000000bb",` +
		`"bits":"17034219","curtime":1713571900,"mintime":1713571767,"version":536870912,"coinbasevalue":312500000,` +
		`"coinbaseaux":{"flags":"aabb"},"rules":["csv","!segwit"],"transactions":[]},"error":null,"id":"1"}` + "\n"
	got := job.EmptyResponse(&job.Template{
		Height: 840001, PrevHash: chainhash.Hash{0xbb}, Bits: 0x17034219, CurTime: 1713571900, MinTime: 1713571767,
		Version: 0x20000000, CoinbaseValue: 312500000, CoinbaseAux: []byte{0xaa, 0xbb}, Rules: []string{"csv", "!segwit"},
	})
	if diff := cmp.Diff(example, string(got)); diff != "" {
		t.Error(diff)
	}
	rapid.Check(t, func(t *rapid.T) {
		want := &job.Template{
			Height:        rapid.Int32Range(1, 1<<31-1).Draw(t, "height"),
			PrevHash:      chainhash.Hash(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "previous")),
			Bits:          rapid.SampledFrom([]uint32{0x1d00ffff, 0x207fffff, 0x03123456}).Draw(t, "bits"),
			CurTime:       rapid.Uint32().Draw(t, "time"),
			MinTime:       rapid.Uint32().Draw(t, "earliest"),
			Version:       rapid.Int32().Draw(t, "version"),
			CoinbaseValue: rapid.Int64Range(0, 21e14).Draw(t, "value"),
		}
		for range rapid.IntRange(0, 2).Draw(t, "rules") {
			want.Rules = append(want.Rules, rapid.StringMatching(`[^!\x00]{1,5}`).Draw(t, "rule"))
		}
		got, err := job.ParseTemplate(job.EmptyResponse(want))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

// A template that is accepted can be mined: its target is valid, its commitment is there when it is needed, and
// blkmaker finds as many transactions as jobmaker did.
func FuzzParseTemplate(f *testing.F) {
	testkit.Seeds(f, "*.gbt")
	f.Fuzz(func(t *testing.T, in []byte) {
		template, err := job.ParseTemplate(in)
		height, txs, txsErr := job.TemplateTransactions(in)
		if err != nil {
			return
		}
		if _, err := bitcoin.TargetFromBits(template.Bits); err != nil || template.Height < 1 {
			t.Fatalf("accepted height %d: %v", template.Height, err)
		}
		if n := len(template.WitnessCommitment); n != 0 && n < 38 {
			t.Fatalf("accepted a commitment of %d bytes", n)
		}
		if txsErr == nil && (len(txs) != template.Transactions || height != template.Height) {
			t.Fatalf("%d ids at height %d but %d transactions at %d", template.Transactions, template.Height, len(txs), height)
		}
	})
}

// largeTemplate is as large as they get on mainnet: 3,500 transactions, 2.7 MB.
func largeTemplate() []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return hex.EncodeToString(b)
	}
	var list []string
	for range 3500 {
		list = append(list, fmt.Sprintf(`{"data":"%s","txid":"%s","hash":"%s","depends":[],"fee":1000,"sigops":4,"weight":1140}`,
			random(260), random(32), random(32)))
	}
	return fmt.Appendf(nil, `{"result":{"version":536870912,"rules":["csv","!segwit","taproot"],"vbavailable":{},"vbrequired":0,`+
		`"previousblockhash":"%064x","transactions":[%s],"coinbaseaux":{},"coinbasevalue":312535000,"longpollid":"x",`+
		`"target":"%064x","mintime":1713571767,"mutable":["time","transactions","prevblock"],"noncerange":"00000000ffffffff",`+
		`"sigoplimit":80000,"sizelimit":4000000,"weightlimit":4000000,"curtime":1713571900,"bits":"17034219","height":840001,`+
		`"default_witness_commitment":"%x"},"error":null,"id":1}`+"\n",
		1, strings.Join(list, ","), 1, bitcoin.WitnessCommitmentScript(chainhash.Hash{}))
}

func BenchmarkParseTemplate(b *testing.B) {
	response := largeTemplate()
	b.SetBytes(int64(len(response)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := job.ParseTemplate(response); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTemplateTransactions(b *testing.B) {
	response := largeTemplate()
	b.SetBytes(int64(len(response)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := job.TemplateTransactions(response); err != nil {
			b.Fatal(err)
		}
	}
}

// The limit of the two above: finding the ends of all strings once.
func BenchmarkTemplateLimit(b *testing.B) {
	response := largeTemplate()
	b.SetBytes(int64(len(response)))
	b.ReportAllocs()
	for b.Loop() {
		rest := response
		for i := 0; i >= 0; rest = rest[i+1:] {
			i = bytes.IndexByte(rest, '"')
		}
	}
}

// A signet whose blocks must be signed cannot be mined, and the error says so.
func TestSignetChallenge(t *testing.T) {
	t.Parallel()
	for challenge, want := range map[string]string{
		"51": "",
		"512103ad5e0edad18cb1f0fc0d28a3d4f1f3e445640337489abb10404f2d1e086be430210359ef5021964fe22d6f8e05b2463c9540ce96883fe3b278760f048f5189f2e6c452ae": "must be signed",
	} {
		text := strings.Replace(string(job.EmptyResponse(&job.Template{
			Height: 1, Bits: 0x1e0377ae, CurTime: 2, MinTime: 1, Rules: []string{"segwit", "!signet"},
		})), `"rules"`, `"signet_challenge":"`+challenge+`","rules"`, 1)
		_, err := job.ParseTemplate([]byte(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", challenge, err, want)
		}
	}
}
