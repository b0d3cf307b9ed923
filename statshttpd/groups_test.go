package statshttpd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/share"
)

func TestGroups(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	for name, of := range map[string]struct {
		shares int
		last   time.Duration
	}{
		"hall1.m01": {60, 0}, "hall1-m02": {30, 0}, "hall1_m03": {30, 30 * time.Minute}, "hall2.x": {90, 0}, "alone": {10, 0}, ".dot": {4, 0},
	} {
		id := s.connect(t, noon.Add(-59*time.Minute), 1, "ann", name, "")
		for i := range of.shares {
			one := share.Share{UserID: 1, WorkerID: id, Status: share.StatusAccept, Difficulty: 10, Time: noon.Add(-of.last - time.Duration(i)*10*time.Second).Unix()}
			if i%30 == 1 {
				one.Status = share.StatusDuplicate
			}
			s.mine(t, one)
		}
	}
	id := s.connect(t, noon, 2, "bob", "hall1.m01", "")
	s.mine(t, share.Share{UserID: 2, WorkerID: id, Status: share.StatusAccept, Difficulty: 20, Time: noon.Unix()})
	s.connect(t, noon, 1, "ann", "hall9.waits", "")
	h := s.Handler()

	type sum struct {
		Group           string
		Workers, Silent int
		Shares, Refused uint64
	}
	ask := func(query string) (total int, sums []sum) {
		t.Helper()
		w := get(h, "/api/v1/users/ann/groups"+query)
		var a groupsAnswer
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", query, w.Code, w.Body)
		}
		for _, g := range a.Groups {
			sums = append(sums, sum{g.Group, g.Workers, g.WorkersSilent, g.Shares.Accepted.Shares, g.Shares.Rejected.Shares})
			if *g.Hashrate.H1 <= 0 || g.LastShareAt == nil || g.WorkersOnline != g.Workers-g.WorkersSilent {
				t.Errorf("group %q: %+v", g.Group, g)
			}
		}
		return a.Total, sums
	}
	want := []sum{{"", 2, 0, 12, 2}, {"hall1", 3, 1, 116, 4}, {"hall2", 1, 0, 87, 3}}
	if total, got := ask(""); total != 3 || !slices.Equal(got, want) {
		t.Errorf("%d groups\n%s", total, cmp.Diff(want, got))
	}
	if total, got := ask("?sort=-silent&limit=1"); total != 3 || !slices.Equal(got, want[1:2]) {
		t.Errorf("those with the most silent workers first: %d, %v", total, got)
	}
	if total, got := ask("?sort=-group&offset=2"); total != 3 || !slices.Equal(got, want[:1]) {
		t.Errorf("from the end: %d, %v", total, got)
	}
	if total, got := ask("?q=HALL2"); total != 1 || !slices.Equal(got, want[2:]) {
		t.Errorf("searched: %d, %v", total, got)
	}
	if w := get(h, "/api/v1/users/nobody/groups"); w.Code != http.StatusNotFound {
		t.Errorf("of nobody: status %d", w.Code)
	}
	workers := func(query string) (names []string) {
		t.Helper()
		var a workersAnswer
		if err := json.Unmarshal(get(h, "/api/v1/workers?sort=name&"+query).Body.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		for _, w := range a.Workers {
			names = append(names, w.User+"/"+w.Worker+"/"+w.Group)
		}
		return names
	}
	for query, want := range map[string][]string{
		"user=ann&group=hall1": {"ann/hall1-m02/hall1", "ann/hall1.m01/hall1", "ann/hall1_m03/hall1"},
		"group=hall1&q=m01":    {"ann/hall1.m01/hall1", "bob/hall1.m01/hall1"},
		"user=ann&group=":      {"ann/.dot/", "ann/alone/"},
		"group=nothing":        nil,
	} {
		if diff := cmp.Diff(want, workers(query)); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
}

// Orders that nobody asks for any more do not stay: whose groups there are is up to whoever asks.
func TestOrdersAreForgotten(t *testing.T) {
	t.Parallel()
	kept := newOrders[group]()
	for i := range 10 * mostOrders {
		kept.get(fmt.Sprint(i), noon, func(*order[group]) *order[group] { return &order[group]{} })
	}
	if n := len(kept.kept); n > 2*mostOrders {
		t.Errorf("%d are kept", n)
	}
	for i := range 2 {
		kept.get(fmt.Sprint("later", i), noon.Add(orderStale), func(*order[group]) *order[group] { return &order[group]{} })
	}
	if n := len(kept.kept); n != 2 {
		t.Errorf("%d are kept after a while", n)
	}
}
