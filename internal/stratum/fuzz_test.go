package stratum_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"testing"
	"unicode/utf8"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/google/go-cmp/cmp"

	"btcpool/internal/job"
	"btcpool/internal/stratum"
)

func FuzzParseRequest(f *testing.F) {
	for _, line := range requests(f) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		req, n, err := stratum.ParseRequest(in)
		if err != nil {
			return
		}
		if text := bytes.Trim(in[:n], "\x00 \t\r\n\ufeff"); !json.Valid(text) {
			t.Fatalf("%q is no JSON", in)
		}
		line := req.AppendTo(nil)
		if bytes.Count(line, []byte("\n")) != 1+bytes.Count(req.Params, []byte("\n")) {
			t.Fatalf("%q is no line", line)
		}
		again, _, err := stratum.ParseRequest(line)
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
		if req, _, err := stratum.ParseRequest(line); err == nil {
			f.Add(req.Params)
		}
	}
	f.Fuzz(func(t *testing.T, params []byte) {
		req, _, err := stratum.ParseRequest(append(append([]byte(`{"method":"m","params":`), params...), '}'))
		if err != nil {
			return
		}
		if s, err := stratum.ParseSubmit(req.Params, 8); err == nil {
			var list []any
			if json.Unmarshal(req.Params, &list) != nil || len(list) < 5 {
				t.Fatalf("%q gives %+v", params, s)
			}
		}
		_, _ = stratum.ParseGrandSubmit(req.Params)
		if c, err := stratum.ParseConfigure(req.Params); err == nil {
			if answer := stratum.AppendConfigured(nil, nil, c, c.Mask(0x1fffe000)); !json.Valid(answer) {
				t.Fatalf("answer %q", answer)
			}
		}
		_, _, _ = stratum.ParseSubscribe(req.Params)
		_, _ = stratum.ParseCapabilities(req.Params)
		_, _, _ = stratum.ParseEndSession(req.Params)
		_, _, _ = stratum.ParseAuthorize(req.Params)
		_, _ = stratum.ParseSuggestDifficulty(req.Params)
		_, _ = stratum.ParseSuggestTarget(req.Params)
		_, _ = stratum.ParseMultiVersion(req.Params)
	})
}

// A line means the same to both halves, and what is taken of it says all of it.
func FuzzParseMessage(f *testing.F) {
	for _, line := range append(poolLines(f), requests(f)...) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := stratum.ParseMessage(in)
		if err != nil {
			return
		}
		if text := bytes.Trim(in, "\x00 \t\r\n\ufeff"); !json.Valid(text) {
			t.Fatalf("%q is no JSON", in)
		}
		req, n, err := stratum.ParseRequest(in)
		if errors.Is(err, stratum.ErrSyntax) || n != len(in) || m.ID != nil && !bytes.Equal(req.ID, m.ID) || !bytes.Equal(req.Method, m.Method) || !bytes.Equal(req.Params, m.Params) {
			t.Fatalf("%q: request %q (%v), message %q", in, req, err, m)
		}
		if code, text, refused := m.Refusal(); !refused && (code != 0 || text != "" || string(m.Result) != "true") {
			t.Fatalf("%q is granted: %d %q", in, code, text)
		}
		var line []byte
		for _, member := range []struct {
			key   string
			value []byte
		}{{"id", m.ID}, {"method", quote(m.Method)}, {"params", m.Params}, {"result", m.Result}, {"error", m.Error}} {
			if member.value != nil {
				line = append(append(append(append(line, `,"`...), member.key...), `":`...), member.value...)
			}
		}
		line = append([]byte("{"), append(bytes.TrimPrefix(line, []byte(",")), '}')...)
		again, err := stratum.ParseMessage(line)
		if diff := cmp.Diff(m, again); err != nil || diff != "" {
			t.Fatalf("%q is not stable: %v\n%s", in, err, diff)
		}
	})
}

func quote(text []byte) []byte {
	if text == nil {
		return nil
	}
	return append(append([]byte{'"'}, text...), '"')
}

// Parameters that a pool sends: what is taken is within its bounds, and reads the same when the server's half says it
// again.
func FuzzPoolParams(f *testing.F) {
	for _, line := range poolLines(f) {
		m, err := stratum.ParseMessage(line)
		if err != nil {
			f.Fatal(err)
		}
		for _, params := range [][]byte{m.Params, m.Result} {
			if params != nil {
				f.Add(params)
			}
		}
	}
	f.Fuzz(func(t *testing.T, params []byte) {
		m, err := stratum.ParseMessage(append(append([]byte(`{"method":"m","params":`), params...), '}'))
		if err != nil {
			return
		}
		again := func(line []byte) []byte {
			t.Helper()
			m, err := stratum.ParseMessage(line)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			return m.Params
		}
		if d, err := stratum.ParseSetDifficulty(m.Params); err == nil && !(d > 0 && d <= math.MaxFloat64) {
			t.Fatalf("%q: difficulty %g", params, d)
		}
		if extraNonce1, size, err := stratum.ParseSetExtranonce(m.Params); err == nil && (len(extraNonce1) > 64 || size < 1 || size > 32) {
			t.Fatalf("%q: extranonces %x %d", params, extraNonce1, size)
		}
		if key := stratum.ParseSessionKey(m.Params); len(key) != 0 && len(key) != 16 {
			t.Errorf("key %q", key)
		}
		if session := stratum.ParseSession(m.Params); len(session) > 64 {
			t.Errorf("session %q", session)
		}
		if extraNonce1, size, err := stratum.ParseSubscribed(m.Params); err == nil && (len(extraNonce1) > 64 || size < 1 || size > 32) {
			t.Fatalf("%q: extranonces %x %d", params, extraNonce1, size)
		}
		if mask, err := stratum.ParseSetVersionMask(m.Params); err == nil {
			if got, err := stratum.ParseSetVersionMask(again(stratum.AppendSetVersionMask(nil, mask))); got != mask || err != nil {
				t.Fatalf("%q: mask %08x, then %08x, %v", params, mask, got, err)
			}
		}
		if host, port, wait, err := stratum.ParseReconnect(m.Params); err == nil && host != "" && utf8.ValidString(host) {
			if !(wait >= 0) {
				t.Fatalf("%q: wait %g", params, wait)
			}
			gotHost, gotPort, _, err := stratum.ParseReconnect(again(stratum.AppendReconnect(nil, host, port, 0)))
			if gotHost != host || gotPort != port || err != nil {
				t.Fatalf("%q: %s %d, then %s %d, %v", params, host, port, gotHost, gotPort, err)
			}
		}
		if text, ok := stratum.ParseShowMessage(m.Params); ok && utf8.ValidString(text) {
			if got, ok := stratum.ParseShowMessage(again(stratum.AppendShowMessage(nil, text))); got != text || !ok {
				t.Fatalf("%q: %q, then %q", params, text, got)
			}
		}
		_, _, _ = stratum.ParseConfigured(m.Params, 1)
	})
}

// A job that is taken reads the same when the server's half says it again.
func FuzzJob(f *testing.F) {
	for _, line := range poolLines(f) {
		if m, err := stratum.ParseMessage(line); err == nil && m.Params != nil {
			f.Add(m.Params)
		}
	}
	f.Add([]byte(`[[[[[[[`))
	f.Fuzz(func(t *testing.T, params []byte) {
		m, err := stratum.ParseMessage(append(append([]byte(`{"method":"m","params":`), params...), '}'))
		if err != nil {
			return
		}
		var heard stratum.Job
		if heard.Parse(m.Params) != nil {
			return
		}
		notify := stratum.NewNotify(&job.StratumJob{
			PrevHash: heard.PrevHash, MerkleBranch: heard.Branch, Version: int32(heard.Version), Bits: heard.Bits, Time: heard.Time,
		}, heard.Coinbase1, heard.Coinbase2)
		if m, err = stratum.ParseMessage(notify.AppendTo(nil, 7, 0, heard.Clean)); err != nil {
			t.Fatal(err)
		}
		again := stratum.Job{ID: []byte("before"), Branch: make([]chainhash.Hash, 3)}
		if err := again.Parse(m.Params); err != nil {
			t.Fatal(err)
		}
		heard.ID = []byte("7")
		if diff := cmp.Diff(heard, again, emptyIsNil); diff != "" {
			t.Fatalf("%q is not stable:\n%s", params, diff)
		}
	})
}
