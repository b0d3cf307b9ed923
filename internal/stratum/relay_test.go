package stratum_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"btcpool/internal/stratum"
)

const notifyParams = `["7","` + "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f" +
	`","0100","ff",[],"20000000","1d00ffff","650a0b0c",false]`

func TestExtension(t *testing.T) {
	t.Parallel()
	e := stratum.Extension{Mark: 'c', Coinbase1: []byte("f000000100"), ExtraNonce2: []byte("0001000080")}
	got, err := e.AppendNotify([]byte("before "), []byte(notifyParams), true)
	want := `before {"id":null,"method":"mining.notify","params":["c7","` + strings.Repeat("0f", 32) +
		`","0100f000000100","ff",[],"20000000","1d00ffff","650a0b0c",true]}` + "\n"
	if err != nil || string(got) != want {
		t.Errorf("notify: %s, %v", got, err)
	}
	params := []byte(`["alice.rig", "c7","01020304","650a0b0c","0000000a","00002000"]`)
	got, err = e.AppendSubmit(nil, 20, params, []byte("alice_bch.rig"))
	want = `{"id":20,"method":"mining.submit","params":["alice_bch.rig","7","000100008001020304","650a0b0c","0000000a","00002000"]}` + "\n"
	if err != nil || string(got) != want {
		t.Errorf("submit: %s, %v", got, err)
	}
	if mark, ok := stratum.MarkOf(params); !ok || mark != 'c' {
		t.Errorf("mark %q, %v", mark, ok)
	}
	for _, bad := range []string{`[]`, `["7"]`, `[7,8,9,10,11,12,13,14,15]`, `[{},"","","",[],"","","",true]`, strings.ReplaceAll(notifyParams, "false", "0")} {
		if got, err := e.AppendNotify([]byte("before"), []byte(bad), false); err == nil || string(got) != "before" {
			t.Errorf("notify of %s: %s", bad, got)
		}
	}
	for _, bad := range []string{`[]`, `["a","c","01","02","03"]`, `["a","c7",1,"02","03"]`, `["a","c7","01","02"]`} {
		if got, err := e.AppendSubmit([]byte("before"), 1, []byte(bad), nil); err == nil || string(got) != "before" {
			t.Errorf("submit of %s: %s", bad, got)
		}
	}
}

func TestAppendAnswerTo(t *testing.T) {
	t.Parallel()
	for _, test := range [][3]string{
		{`{"id":17,"result":true,"error":null,"reject-reason":"x"}`, `"a"`, `{"id":"a","result":true,"error":null,"reject-reason":"x"}`},
		{`{"result":true,"id":"17"}`, `null`, `{"result":true,"id":null}`},
		{`{"result":true}`, `3`, `{"result":true}`},
	} {
		line := []byte(test[0])
		m, err := stratum.ParseMessage(line)
		if err != nil {
			t.Fatal(err)
		}
		if got := stratum.AppendAnswerTo(nil, line, &m, []byte(test[1])); string(got) != test[2]+"\n" {
			t.Errorf("%s becomes %s", test[0], got)
		}
	}
}

// A job that passes a proxy is the same but for what the proxy has put into it, and so is a share.
func FuzzExtension(f *testing.F) {
	f.Add([]byte(notifyParams), []byte(`["a","17","01020304","650a0b0c","0000000a"]`))
	for _, line := range requests(f) {
		if req, _, err := stratum.ParseRequest(line); err == nil {
			f.Add([]byte(notifyParams), req.Params)
		}
	}
	e := stratum.Extension{Mark: '1', Coinbase1: []byte("f0000001"), ExtraNonce2: []byte("01000080")}
	f.Fuzz(func(t *testing.T, notify, submit []byte) {
		wrap := func(params []byte) []byte {
			return append(append([]byte(`{"method":"m","params":`), params...), '}')
		}
		if bytes.ContainsAny(notify, "\n") || bytes.ContainsAny(submit, "\n") {
			return // is no part of a line
		}
		if m, err := stratum.ParseMessage(wrap(notify)); err == nil {
			out, err := e.AppendNotify(nil, m.Params, true)
			if err == nil {
				checkNotify(t, m.Params, out)
			}
		}
		req, _, err := stratum.ParseRequest(wrap(submit))
		if err != nil {
			return
		}
		out, err := e.AppendSubmit(nil, 1, req.Params, nil)
		if err != nil {
			return
		}
		if !json.Valid(out) || bytes.Count(out, []byte("\n")) != 1 {
			t.Fatalf("%q is no line", out)
		}
		passed, _, err := stratum.ParseRequest(out)
		if err != nil {
			t.Fatal(err)
		}
		before, err := stratum.ParseSubmit(req.Params, 4)
		if err != nil {
			return
		}
		after, err := stratum.ParseSubmit(passed.Params, 8)
		if err != nil || after.ExtraNonce2 != before.ExtraNonce2|0x01000080<<32 || string(after.JobID) != string(before.JobID[1:]) || after.Nonce != before.Nonce {
			t.Fatalf("%q becomes %q: %v", req.Params, out, err)
		}
	})
}

func checkNotify(t *testing.T, params, out []byte) {
	t.Helper()
	if !json.Valid(out) || bytes.Count(out, []byte("\n")) != 1 {
		t.Fatalf("%q is no line", out)
	}
	var before, after stratum.Job
	if before.Parse(params) != nil {
		return
	}
	passed, err := stratum.ParseMessage(bytes.TrimSpace(out))
	if err == nil {
		err = after.Parse(passed.Params)
	}
	if err != nil {
		t.Fatalf("%q becomes %q: %v", params, out, err)
	}
	own, _ := hex.DecodeString("f0000001")
	if string(after.ID) != "1"+string(before.ID) || !after.Clean || !bytes.Equal(after.Coinbase1, append(before.Coinbase1, own...)) ||
		!bytes.Equal(after.Coinbase2, before.Coinbase2) || after.PrevHash != before.PrevHash || after.Time != before.Time {
		t.Fatalf("%q becomes %q", params, out)
	}
}
