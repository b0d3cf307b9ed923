package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseObject(t *testing.T) {
	t.Parallel()
	nested := func(depth int) string {
		return `{"a":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + "}"
	}
	for text, want := range map[string]error{
		" {} ": nil, nested(maxJSONDepth): nil, `[]`: errNotObject, `"{}"`: errNotObject, ``: errNotJSON, `{`: errNotJSON, `{}{}`: errNotJSON, `{} x`: errNotJSON,
	} {
		if _, err := parseObject([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%q: error %v, want %v", text, err, want)
		}
	}
	if _, err := parseObject([]byte(nested(maxJSONDepth + 1))); err == nil || errors.Is(err, errNotJSON) {
		t.Errorf("too deep: error %v", err)
	}
}

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
