package sserver

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"btcpool/internal/upgrade"
)

var writeState = flag.Bool("write-state", false, "write the state of the newest version into testdata, as a program of that version says it")

// goldenState returns where a state of that version is, as it was written, and what it says.
func goldenState(version uint32) (code, text string) {
	name := filepath.Join("testdata", fmt.Sprintf("state-%d", version))
	return name + ".bin", name + ".json"
}

// What a program of any version says that is still understood is understood: a field that is new must not be looked for
// there. If this fails, the form of a version has changed that may be in use: give it another one.
func TestStateOfOlderPrograms(t *testing.T) {
	t.Parallel()
	if *writeState {
		writeGoldenState(t)
	}
	for version := oldestState; version <= stateVersion; version++ {
		code, text := goldenState(version)
		in, err := os.ReadFile(code)
		if err != nil {
			t.Fatal(err)
		}
		got := moved{session: new(session)}
		r := upgrade.NewReader(version, moment.UTC(), in)
		if got.code(r); r.Err() != nil || r.Left() != 0 {
			t.Fatalf("version %d: %v, %d bytes left", version, r.Err(), r.Left())
		}
		wantText, err := os.ReadFile(text)
		if err != nil {
			t.Fatal(err)
		}
		var want, have any
		if err := json.Unmarshal(wantText, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(said(t, got), &have); err != nil {
			t.Fatal(err)
		}
		wantWithin(t, fmt.Sprintf("version %d", version), have, want)
	}
}

func said(t *testing.T, m moved) []byte {
	t.Helper()
	s := m.session
	data, due, by := s.outbox.Waiting()
	text, err := json.MarshalIndent(map[string]any{
		"state": s.state, "listener": m.listener, "data": data, "due": due, "by": by, "pending": s.pending, "said": s.said,
		"read_by": s.readBy, "paused_until": s.pausedUntil, "strange": s.strange, "admitted": s.admitted, "discard": s.discard,
	}, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

// wantWithin fails the test unless all that is in want is in have.
func wantWithin(t *testing.T, at string, have, want any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		have, _ := have.(map[string]any)
		for name, part := range want {
			wantWithin(t, at+"."+name, have[name], part)
		}
	case []any:
		have, _ := have.([]any)
		if len(have) != len(want) {
			t.Errorf("%s: %d parts, want %d", at, len(have), len(want))
			return
		}
		for i := range want {
			wantWithin(t, fmt.Sprintf("%s[%d]", at, i), have[i], want[i])
		}
	default:
		if !reflect.DeepEqual(have, want) {
			t.Errorf("%s: %v, want %v", at, have, want)
		}
	}
}

func writeGoldenState(t *testing.T) {
	t.Helper()
	one := fullMoved()
	w := upgrade.NewWriter(stateVersion, moment, nil)
	one.code(w)
	got := moved{session: new(session)}
	got.code(upgrade.NewReader(stateVersion, moment.UTC(), w.Bytes()))
	code, text := goldenState(stateVersion)
	for file, content := range map[string][]byte{code: w.Bytes(), text: said(t, got)} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Of each field it is known whether the new process gets it, or makes it: one that is new fails here.
func TestWhatMoves(t *testing.T) {
	t.Parallel()
	for _, of := range []struct {
		value       any
		moves, made string
	}{
		{
			session{},
			"state port outbox pending said readBy pausedUntil strange admitted discard",
			// those with answers that wait for the disk, and those that end, do not move
			"srv loop link protocol pos hashrate users follows held heldBytes heldSeq heldChain ahead since closing cut over lingering why",
		},
		{idPool{}, "server secret first given freed claimed pasts", "rest mu miners"},
		{heldPast{}, "past ip at", ""},
		{past{}, "Miner Jobs Next Farm", ""},
		{freedID{}, "id at", ""},
		{jobBook{}, "left works tip since round", "lifetime maxDelay resend grace render subPools mu pulse"},
		{work{}, "StratumJob made tip seen", "target merged coinbases"},
		{round{}, "number work start", ""},
		{worker{}, "Login UserName UserID Past Name ID Conduct", ""},
		{question{}, "Worker Wishes Chain ByNode Ends", ""},
		{switchboard{}, "auto passing", "srv log nodes single file results seconds asking mu users waiting patient abandon"},
		{shareKey{}, "extraNonce2 extraNonce1 time nonce versionBits", ""},
	} {
		var fields []string
		for _, f := range reflect.VisibleFields(reflect.TypeOf(of.value)) {
			if len(f.Index) == 1 {
				fields = append(fields, f.Name)
			}
		}
		known := strings.Fields(of.moves + " " + of.made)
		slices.Sort(fields)
		slices.Sort(known)
		if !slices.Equal(fields, known) {
			t.Errorf("%T has %s, of which it is known: %s", of.value, fields, known)
		}
	}
}
