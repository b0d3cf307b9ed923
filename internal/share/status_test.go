package share_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/share"
)

func TestStatusGroups(t *testing.T) {
	t.Parallel()
	for status, want := range map[share.Status]struct{ accepted, stale bool }{
		share.StatusAccept:             {true, false},
		1422486894:                     {true, false}, // solved
		share.StatusAcceptStale:        {true, true},
		1713984938:                     {true, true},
		share.StatusJobNotFoundOrStale: {false, true},
		share.StatusStale:              {false, true},
		share.StatusJobNotFound:        {false, false},
		share.StatusLowDifficulty:      {false, false},
		share.StatusRejectNoReason:     {false, false},
		share.StatusUnknown:            {false, false},
	} {
		if status.IsAccepted() != want.accepted || status.IsStale() != want.stale {
			t.Errorf("%d: accepted %t, stale %t; want %+v", status, status.IsAccepted(), status.IsStale(), want)
		}
	}
}

func TestStatusText(t *testing.T) {
	t.Parallel()
	for status, want := range map[share.Status]string{
		1798084231: "Share accepted",
		21:         "Job not found (=stale)",
		22:         "Duplicate share",
		23:         "Low difficulty",
		37:         "Stale share",
		12345:      "Unknown",
	} {
		if got := status.Text(); got != want {
			t.Errorf("%d: %q, want %q", status, got, want)
		}
	}
}

// Each constant of status.go is in the table, where nothing is twice.
func TestEveryStatusIsInTheTable(t *testing.T) {
	t.Parallel()
	table := make(map[share.Status]bool)
	for _, s := range share.Statuses() {
		if table[s] || s.Known() != s || s.Text() == "" {
			t.Errorf("%d is found as %d, %q; twice %t", s, s.Known(), s.Text(), table[s])
		}
		table[s] = true
	}
	file, err := parser.ParseFile(token.NewFileSet(), "status.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constants := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Status") {
			return true
		}
		constants++
		number, err := strconv.ParseInt(spec.Values[0].(*ast.BasicLit).Value, 10, 32)
		if err != nil || !table[share.Status(number)] {
			t.Errorf("%s is not in the table of verdicts: %v", spec.Names[0], err)
		}
		return false
	})
	if constants < 19 {
		t.Errorf("found %d constants only", constants)
	}
}

// What follows from the table where it is not the same for all.
func TestStatusProperties(t *testing.T) {
	t.Parallel()
	type properties struct {
		Known, Told share.Status
		Label       string
		MinersFault bool
	}
	for s, want := range map[share.Status]properties{
		share.StatusAccept:             {share.StatusAccept, share.StatusAccept, "0", false},
		share.StatusAcceptStale:        {share.StatusAcceptStale, share.StatusAcceptStale, "stale", false},
		1422486894:                     {1422486894, 1422486894, "other", false},
		share.StatusRejectNoReason:     {share.StatusRejectNoReason, share.StatusRejectNoReason, "other", true},
		share.StatusDuplicate:          {22, 22, "22", true},
		share.StatusInternalError:      {30, 30, "30", false},
		share.StatusJobNotFoundOrStale: {21, 21, "21", false},
		share.StatusJobNotFound:        {36, 21, "36", false},
		share.StatusStale:              {37, 21, "37", false},
		share.StatusUnknown:            {share.StatusUnknown, share.StatusUnknown, "other", true},
		38:                             {share.StatusUnknown, 38, "other", true},
		-1:                             {share.StatusUnknown, -1, "other", true},
	} {
		if diff := cmp.Diff(want, properties{s.Known(), s.Told(), s.Label(), s.IsMinersFault()}); diff != "" {
			t.Errorf("%d: %s", s, diff)
		}
	}
}

func TestWorkerID(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int64{
		"hello": 0x503d8319a48348cd, // the double SHA-256 of "hello" ends, as computed, in cd4883a419833d50
		"":      0x56944c5d3f98413e, // that of nothing in 3e41983f5d4c9456
	} {
		if got := share.WorkerID(name); got != want {
			t.Errorf("WorkerID(%q) = %#x, want %#x", name, got, want)
		}
	}
}
