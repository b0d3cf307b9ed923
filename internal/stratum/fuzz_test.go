package stratum_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/stratum"
)

func FuzzParseRequest(f *testing.F) {
	for _, line := range requests(f) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		req, err := stratum.ParseRequest(in)
		if err != nil {
			return
		}
		if !json.Valid(in) {
			t.Fatalf("%q is no JSON", in)
		}
		line := req.AppendTo(nil)
		if bytes.Count(line, []byte("\n")) != 1+bytes.Count(req.Params, []byte("\n")) {
			t.Fatalf("%q is no line", line)
		}
		again, err := stratum.ParseRequest(line)
		if again.Params = req.Params; err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if diff := cmp.Diff(req, again); diff != "" {
			t.Fatalf("%q is not stable:\n%s", in, diff)
		}
		for _, answer := range [][]byte{stratum.AppendTrue(nil, req.ID), stratum.AppendError(nil, req.ID, 23)} {
			if !json.Valid(answer) {
				t.Fatalf("answer %q", answer)
			}
		}
	})
}

// Parameters of any method: whatever is taken must have been said.
func FuzzParams(f *testing.F) {
	for _, line := range requests(f) {
		if req, err := stratum.ParseRequest(line); err == nil {
			f.Add(req.Params)
		}
	}
	f.Fuzz(func(t *testing.T, params []byte) {
		req, err := stratum.ParseRequest(append(append([]byte(`{"method":"m","params":`), params...), '}'))
		if err != nil {
			return
		}
		if s, err := stratum.ParseSubmit(req.Params, 8); err == nil {
			var list []any
			if json.Unmarshal(req.Params, &list) != nil || len(list) < 5 {
				t.Fatalf("%q gives %+v", params, s)
			}
		}
		if c, err := stratum.ParseConfigure(req.Params); err == nil {
			if answer := stratum.AppendConfigured(nil, nil, c, c.Mask(0x1fffe000)); !json.Valid(answer) {
				t.Fatalf("answer %q", answer)
			}
		}
		_, _, _, _ = stratum.ParseSubscribe(req.Params)
		_, _ = stratum.ParseCapabilities(req.Params)
		_, _, _ = stratum.ParseAuthorize(req.Params)
		_, _ = stratum.ParseSuggestDifficulty(req.Params)
		_, _ = stratum.ParseSuggestTarget(req.Params)
		_, _ = stratum.ParseMultiVersion(req.Params)
	})
}
