package jsonscan_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"btcpool/internal/jsonscan"
)

const depth = 32

// check returns the value that is all of text but for space around it, or why there is none.
func check(text []byte) (jsonscan.Value, int) {
	start := jsonscan.SkipSpace(text, 0)
	end := jsonscan.Skip(text, start, depth)
	if end < 0 {
		return nil, end
	}
	if jsonscan.SkipSpace(text, end) != len(text) {
		return nil, jsonscan.Invalid
	}
	return text[start:end], end
}

var jsonTexts = []string{
	`{}`, `[]`, `""`, `0`, `-0`, `1.50e+10`, `1E-1`, `true`, `false`, `null`, " \t\r\n[1 , {\"a\" : [ ] }]\n",
	`"\"\\\/\b\f\n\r\té€"`, `"0123456789abcdef"`, "\"\x7f\xff\"", `{"a":1,"a":{"":[[],{}]}}`,
	``, ` `, `{`, `[`, `"`, `"\"`, `{]`, `[}`, `[1,]`, `[,1]`, `[1 2]`, `{"a"}`, `{"a":}`, `{"a" 1}`, `{a:1}`, `{"a":1,}`, `{1:1}`,
	`01`, `-`, `+1`, `.5`, `1.`, `1e`, `1e+`, `0x1`, `tru`, `nulll`, `True`, `1 2`, `"a" x`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\u123`,
	"\"\n\"", "\"0123456\x1f\"", "\"01234567\x00\"", "\x00", "\f1", "[\"\\\"]",
}

func TestSkip(t *testing.T) {
	t.Parallel()
	for _, text := range jsonTexts {
		if _, end := check([]byte(text)); (end >= 0) != json.Valid([]byte(text)) {
			t.Errorf("%q: %d", text, end)
		}
	}
	nested := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	if _, end := check(nested(depth + 1)); end != jsonscan.TooDeep {
		t.Errorf("too deep: %d", end)
	}
	if _, end := check(nested(depth)); end != 2*depth {
		t.Errorf("as deep as allowed: %d", end)
	}
	if end := jsonscan.Skip([]byte("{}"), 2, depth); end != jsonscan.Invalid {
		t.Errorf("behind the end: %d", end)
	}
}

func TestValue(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`"ab\"\u0041"`: `ab"A`, `"abc"`: "abc", `""`: "",
	} {
		if got, err := jsonscan.Value(text).Content(); err != nil || string(got) != want {
			t.Errorf("content of %s: %q, %v", text, got, err)
		}
	}
	if got, err := jsonscan.Value(`"00fF"`).AppendHex([]byte("x")); err != nil || string(got) != "x\x00\xff" {
		t.Errorf("hex: %q, %v", got, err)
	}
	for _, text := range []string{``, `0`, `"0"`, `"0g"`, `["00"]`} {
		if got, err := jsonscan.Value(text).AppendHex(nil); err == nil || len(got) != 0 {
			t.Errorf("hex of %s: %q, %v", text, got, err)
		}
	}
}

// What is valid is what encoding/json calls so.
func FuzzSkip(f *testing.F) {
	for _, text := range jsonTexts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		_, end := check(in)
		if valid := end >= 0; valid != json.Valid(in) && end != jsonscan.TooDeep {
			t.Fatalf("%q: %d", in, end)
		}
	})
}

// Walking finds the values that encoding/json finds.
func FuzzEach(f *testing.F) {
	for _, text := range jsonTexts {
		f.Add([]byte(text))
	}
	f.Add([]byte(` { "a" : [ 1 , {"b":"]\"}"} ] , "c\\" : "x\\\"" , "d":-1.5e3,"e":null,"f":[],"g":{},"h":true} `))
	f.Add([]byte(`[ 1 , "a,]" ,{"b":2},[ ],true ]`))
	f.Fuzz(func(t *testing.T, in []byte) {
		v, end := check(in)
		if end < 0 {
			return
		}
		var got, want []string
		switch {
		case v.IsArray():
			var list []json.RawMessage
			if err := json.Unmarshal(in, &list); err != nil {
				t.Fatalf("%q is accepted: %v", in, err)
			}
			for _, element := range list {
				want = append(want, string(element))
			}
		case v.IsObject(): // the decoder gives keys without their escapes
			decoder := json.NewDecoder(bytes.NewReader(in))
			_, _ = decoder.Token()
			for decoder.More() {
				_, _ = decoder.Token()
				var element json.RawMessage
				if err := decoder.Decode(&element); err != nil {
					t.Fatalf("%q is accepted: %v", in, err)
				}
				want = append(want, string(element))
			}
		}
		for key, element := range v.Each() {
			if v.IsObject() != key.IsString() {
				t.Fatalf("%q has the key %q", in, key)
			}
			got = append(got, string(element))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q (-want +got):\n%s", in, diff)
		}
	})
}

// Walking while it is checked finds what Each finds afterwards, also in elements, and ends where Skip does.
func FuzzSkipEach(f *testing.F) {
	for _, text := range jsonTexts {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"a":[1,{"b":"]\"}"}],"b":{"c":[2]},"d":3}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var got, want [][2]string
		start := jsonscan.SkipSpace(in, 0)
		var skip func(key jsonscan.Value, i, left int) int
		skip = func(key jsonscan.Value, i, left int) int {
			place := len(got)
			got = append(got, [2]string{string(key), ""})
			end := jsonscan.SkipEach(in, i, left, skip)
			if end >= 0 {
				got[place][1] = string(in[i:end])
			}
			return end
		}
		end := jsonscan.SkipEach(in, start, depth, skip)
		if skipped := jsonscan.Skip(in, start, depth); end != skipped {
			t.Fatalf("%q: %d, Skip returns %d", in, end, skipped)
		}
		if end < 0 {
			return
		}
		var each func(v jsonscan.Value)
		each = func(v jsonscan.Value) {
			for key, element := range v.Each() {
				want = append(want, [2]string{string(key), string(element)})
				each(element)
			}
		}
		each(in[start:end])
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q (-want +got):\n%s", in, diff)
		}
	})
}

// A template's bulk, against the validators of two libraries, of which gjson's does not bound the depth.
func BenchmarkSkip(b *testing.B) {
	const transaction = `{"data":"%0520d","txid":"%064d","hash":"%064d","depends":[1],"fee":1000,"sigops":4,"weight":1140}`
	text := fmt.Appendf(nil, "["+transaction, 0, 0, 0)
	for i := range 3500 {
		text = fmt.Appendf(text, ","+transaction, i, i, i)
	}
	text = append(text, ']')
	for _, bm := range []struct {
		name  string
		valid func([]byte) bool
	}{
		{"ours", func(text []byte) bool { return jsonscan.Skip(text, 0, depth) == len(text) }},
		{"gjson", gjson.ValidBytes},
		{"encoding-json", json.Valid},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if !bm.valid(text) {
					b.Fatal("not valid")
				}
			}
		})
	}
}
