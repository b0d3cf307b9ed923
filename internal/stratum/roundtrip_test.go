package stratum_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/share"
	"btcpool/internal/stratum"
)

// What one half appends the other parses into the same values.

func TestServerToClient(t *testing.T) {
	t.Parallel()
	rapid.Check(t, serverToClient)
}

func FuzzServerToClient(f *testing.F) { f.Fuzz(rapid.MakeFuzz(serverToClient)) }

func TestClientToServer(t *testing.T) {
	t.Parallel()
	rapid.Check(t, clientToServer)
}

func FuzzClientToServer(f *testing.F) { f.Fuzz(rapid.MakeFuzz(clientToServer)) }

var emptyIsNil = cmpopts.EquateEmpty()

func same(t *rapid.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got, emptyIsNil); diff != "" {
		t.Fatalf("%s (-appended +parsed):\n%s", what, diff)
	}
}

// message is the line of a server as the client hears it.
func message(t *rapid.T, line []byte) *stratum.Message {
	t.Helper()
	if bytes.IndexByte(line, '\n') != len(line)-1 {
		t.Fatalf("%q is not one line", line)
	}
	m, err := stratum.ParseMessage(line[:len(line)-1])
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return &m
}

func drawDifficulty(t *rapid.T) bitcoin.Difficulty {
	return rapid.Custom(func(t *rapid.T) bitcoin.Difficulty {
		return bitcoin.Difficulty(rapid.Int8Range(int8(bitcoin.MinDifficulty), int8(bitcoin.MaxDifficulty)).Draw(t, "exponent"))
	}).Draw(t, "difficulty")
}

func drawConfigure(t *rapid.T) stratum.Configure {
	c := stratum.Configure{
		Extensions:  rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"info", "minimum-difficulty", "subscribe-extranonce", "version-rolling", "<x>"}), 0, 5, rapid.ID).Draw(t, "extensions"),
		VersionMask: 1<<32 - 1,
	}
	slices.Sort(c.Extensions)
	if c.Asks(stratum.VersionRolling) {
		c.VersionMask = rapid.Uint32().Draw(t, "mask")
		c.MinBitCount = rapid.IntRange(0, 32).Draw(t, "bits")
	}
	if c.Asks(stratum.MinimumDifficulty) {
		d := drawDifficulty(t)
		c.MinimumDifficulty = &d
	}
	return c
}

func drawHash(t *rapid.T, label string) chainhash.Hash {
	return chainhash.Hash(rapid.SliceOfN(rapid.Byte(), chainhash.HashSize, chainhash.HashSize).Draw(t, label))
}

func serverToClient(t *rapid.T) {
	id := rapid.Uint64().Draw(t, "id")
	idText := fmt.Appendf(nil, rapid.SampledFrom([]string{"%d", `"%d"`}).Draw(t, "form"), id)
	answer := func(line []byte) *stratum.Message {
		m := message(t, line)
		number, ok := m.Number()
		same(t, "id", []any{id, true}, []any{number, ok})
		return m
	}

	extraNonce1, size := rapid.Uint32().Draw(t, "extranonce1"), rapid.IntRange(1, 32).Draw(t, "size")
	gotExtraNonce1, gotSize, err := stratum.ParseSubscribed(answer(stratum.AppendSubscribed(nil, idText, extraNonce1, size)).Result)
	same(t, "subscribed", []any{fmt.Sprintf("%08x", extraNonce1), size, nil}, []any{fmt.Sprintf("%x", gotExtraNonce1), gotSize, err})

	c := drawConfigure(t)
	mask := c.Mask(rapid.Uint32().Draw(t, "allowed"))
	gotMask, granted, err := stratum.ParseConfigured(answer(stratum.AppendConfigured(nil, idText, c, mask)).Result, 0)
	same(t, "configured", []any{mask, mask != 0, nil}, []any{gotMask, granted, err})

	gotMask, err = stratum.ParseSetVersionMask(message(t, stratum.AppendSetVersionMask(nil, mask)).Params)
	same(t, "version mask", []any{mask, nil}, []any{gotMask, err})

	d := drawDifficulty(t)
	difficulty, err := stratum.ParseSetDifficulty(message(t, stratum.AppendSetDifficulty(nil, d)).Params)
	same(t, "difficulty", []any{d.Float(), nil}, []any{difficulty, err})

	j := &job.StratumJob{
		PrevHash: drawHash(t, "previous hash"),
		Version:  rapid.Int32().Draw(t, "version"),
		Bits:     rapid.Uint32().Draw(t, "bits"),
		Time:     rapid.Uint32().Draw(t, "time"),
	}
	for range rapid.IntRange(0, 16).Draw(t, "branch") {
		j.MerkleBranch = append(j.MerkleBranch, drawHash(t, "hash"))
	}
	coinbase1, coinbase2 := rapid.SliceOf(rapid.Byte()).Draw(t, "coinbase1"), rapid.SliceOf(rapid.Byte()).Draw(t, "coinbase2")
	later, clean := rapid.Uint32().Draw(t, "later"), rapid.Bool().Draw(t, "clean")
	var got stratum.Job
	err = got.Parse(message(t, stratum.NewNotify(j, coinbase1, coinbase2).AppendTo(nil, id, later, clean)).Params)
	want := stratum.Job{
		ID: fmt.Appendf(nil, "%d", id), PrevHash: j.PrevHash, Coinbase1: coinbase1, Coinbase2: coinbase2, Branch: j.MerkleBranch,
		Version: uint32(j.Version), Bits: j.Bits, Time: j.Time + later, Clean: clean,
	}
	same(t, "job", []any{want, nil}, []any{got, err})

	host, port := rapid.String().Draw(t, "host"), rapid.Uint16().Draw(t, "port")
	wait := rapid.IntRange(0, 1<<20).Draw(t, "wait")
	if host == "" {
		port, wait = 0, 0
	}
	gotHost, gotPort, gotWait, err := stratum.ParseReconnect(message(t, stratum.AppendReconnect(nil, host, port, wait)).Params)
	same(t, "reconnect", []any{host, port, float64(wait), nil}, []any{gotHost, gotPort, gotWait, err})

	text, ok := stratum.ParseShowMessage(message(t, stratum.AppendShowMessage(nil, host)).Params)
	same(t, "message", []any{host, true}, []any{text, ok})

	_, _, refused := answer(stratum.AppendTrue(nil, idText)).Refusal()
	same(t, "true", false, refused)
	status := rapid.SampledFrom([]share.Status{share.StatusDuplicate, share.StatusLowDifficulty, share.StatusUnknown}).Draw(t, "status")
	code, text, refused := answer(stratum.AppendError(nil, idText, status)).Refusal()
	same(t, "error", []any{int(status), status.Text(), true}, []any{code, text, refused})
}

// request is the line of a client as the server hears it.
func request(t *rapid.T, line []byte) stratum.Request {
	t.Helper()
	text, n, err := stratum.CutLine(line)
	if err != nil || n != len(line) {
		t.Fatalf("%q is not one line", line)
	}
	r, _, err := stratum.ParseRequest(text)
	if err != nil && !errors.Is(err, stratum.ErrAnswer) {
		t.Fatalf("%s: %v", line, err)
	}
	return r
}

func clientToServer(t *rapid.T) {
	id := rapid.Uint64().Draw(t, "id")
	params := func(method string, line []byte) []byte {
		r := request(t, line)
		same(t, "request", []any{method, fmt.Sprint(id)}, []any{string(r.Method), string(r.ID)})
		return r.Params
	}

	text, session := rapid.String(), rapid.Uint32().Draw(t, "session")
	agent := text.Draw(t, "agent")
	gotAgent, _, resume := stratum.ParseSubscribe(params("mining.subscribe", stratum.AppendSubscribe(nil, id, agent, "")))
	same(t, "subscribe", []any{agent, false}, []any{gotAgent, resume})
	gotAgent, gotSession, resume := stratum.ParseSubscribe(
		params("mining.subscribe", stratum.AppendSubscribe(nil, id, agent, fmt.Sprintf("%08x", session))))
	same(t, "resume", []any{agent, session, true}, []any{gotAgent, gotSession, resume})

	name, password := text.Draw(t, "name"), text.Draw(t, "password")
	gotName, gotPassword, err := stratum.ParseAuthorize(params("mining.authorize", stratum.AppendAuthorize(nil, id, name, password)))
	same(t, "authorize", []any{name, password, nil}, []any{gotName, gotPassword, err})

	c := drawConfigure(t)
	gotConfigure, err := stratum.ParseConfigure(params("mining.configure", stratum.AppendConfigure(nil, id, c)))
	same(t, "configure", []any{c, nil}, []any{gotConfigure, err})

	d := drawDifficulty(t)
	gotDifficulty, err := stratum.ParseSuggestDifficulty(append(d.AppendTo([]byte("[")), ']'))
	same(t, "difficulty", []any{d, nil}, []any{gotDifficulty, err})

	size := rapid.IntRange(1, 32).Draw(t, "size")
	s := stratum.Submit{
		Worker:      stratum.Escape(name),
		JobID:       stratum.Escape(text.Draw(t, "job")),
		ExtraNonce2: rapid.Uint64().Draw(t, "extranonce2") >> (64 - 8*min(size, 8)),
		Time:        rapid.Uint32().Draw(t, "time"),
		Nonce:       rapid.Uint32().Draw(t, "nonce"),
		Rolled:      rapid.Bool().Draw(t, "rolled"),
	}
	if s.Rolled {
		s.VersionBits = rapid.Uint32().Draw(t, "version bits")
	}
	gotSubmit, err := stratum.ParseSubmit(params("mining.submit", stratum.AppendSubmit(nil, id, s, size)), size)
	same(t, "submit", []any{s, nil}, []any{gotSubmit, err})

	version := request(t, stratum.AppendVersion(nil, []byte(`"x"`), agent))
	same(t, "version", string(stratum.Escape(agent)), string(version.Result))
}
