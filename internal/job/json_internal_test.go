package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// Walking an object finds what encoding/json finds in it.
func FuzzFieldsOf(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1}`, ` { "a" : [ 1 , {"b":"]\"}"} ] , "c\\" : "x\\\"" , "d":-1.5e3,"e":null,"f":[],"g":{},"h":true} `,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		object, err := parseObject(in)
		if err != nil {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(in, &want); err != nil {
			t.Fatalf("%q is accepted: %v", in, err)
		}
		got := fieldsOf(object)
		if got.err != nil || !utf8.Valid(in) || bytes.Contains(in, []byte(`\u`)) {
			return // lone surrogates come out differently
		}
		if len(got.values) != len(want) {
			t.Fatalf("%q has keys %q, want %q", in, got.values, want)
		}
		for key, v := range want {
			if !bytes.Equal(got.values[key], v) {
				t.Fatalf("%q: value of %q is %q, want %q", in, key, got.values[key], v)
			}
		}
	})
}

var jsonTexts = []string{
	`{}`, `[]`, `""`, `0`, `-0`, `1.50e+10`, `1E-1`, `true`, `false`, `null`, " \t\r\n[1 , {\"a\" : [ ] }]\n",
	`"\"\\\/\b\f\n\r\té€"`, `"0123456789abcdef"`, "\"\x7f\xff\"", `{"a":1,"a":{"":[[],{}]}}`,
	``, ` `, `{`, `[`, `"`, `"\"`, `{]`, `[}`, `[1,]`, `[,1]`, `[1 2]`, `{"a"}`, `{"a":}`, `{"a" 1}`, `{a:1}`, `{"a":1,}`, `{1:1}`,
	`01`, `-`, `+1`, `.5`, `1.`, `1e`, `1e+`, `0x1`, `tru`, `nulll`, `True`, `1 2`, `"a" x`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\u123`,
	"\"\n\"", "\"0123456\x1f\"", "\"01234567\x00\"", "\x00", "\f1", "[\"\\\"]",
}

func TestCheckJSON(t *testing.T) {
	t.Parallel()
	for _, text := range jsonTexts {
		if err := checkJSON([]byte(text)); (err == nil) != json.Valid([]byte(text)) {
			t.Errorf("%q: %v", text, err)
		}
	}
	deep := bytes.Repeat([]byte{'['}, maxJSONDepth+1)
	if err := checkJSON(append(deep, bytes.Repeat([]byte{']'}, maxJSONDepth+1)...)); err == nil || errors.Is(err, errNotJSON) {
		t.Errorf("too deep: %v", err)
	}
	if err := checkJSON(append(deep[1:], bytes.Repeat([]byte{']'}, maxJSONDepth)...)); err != nil {
		t.Errorf("as deep as allowed: %v", err)
	}
}

// What is valid is what encoding/json calls so.
func FuzzCheckJSON(f *testing.F) {
	for _, text := range jsonTexts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		err := checkJSON(in)
		if valid := err == nil; valid != json.Valid(in) && (valid || errors.Is(err, errNotJSON)) {
			t.Fatalf("%q: %v", in, err)
		}
	})
}

// A template's bulk, against the validators of two libraries, of which gjson's
// does not bound the depth.
func BenchmarkCheckJSON(b *testing.B) {
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
		{"ours", func(text []byte) bool { return checkJSON(text) == nil }},
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
