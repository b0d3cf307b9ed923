package switcher

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/testkit"
)

// TestStatus has miners on two chains, one of whose servers ends.
func TestStatus(t *testing.T) {
	t.Parallel()
	btc, bch := startPool(t, "a"), startPool(t, "b")
	r := startRig(t, []Chain{chainOf("btc", btc), chainOf("bch", bch)}, map[string]string{"alice": "btc", "bob": "bch"})
	r.machine().login("alice.rig")
	r.machine().login("alice.rig2")
	bob := r.machine()
	bob.login("bob")
	fresh := r.machine()
	fresh.hear(fresh.ask("mining.subscribe", "[]"))
	status := func() (st Status, text string) {
		res, err := http.Get("http://" + r.StatusAddr().String() + "/status")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var all json.RawMessage
		if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(all, &st); err != nil {
			t.Fatal(err)
		}
		return st, string(all)
	}
	st, text := status()
	if strings.Contains(text, "alice") {
		t.Errorf("names of users in %s", text)
	}
	if st.Connections != 4 || st.ServerID != 1 || st.ZooKeeper == "" || st.Started.IsZero() {
		t.Errorf("status %s", text)
	}
	if diff := cmp.Diff(map[string]int{"mining": 3, "subscribed": 1}, st.Phases); diff != "" {
		t.Error(diff)
	}
	chains := func(st Status) (sessions []int, faults []bool) {
		for i, c := range st.Chains {
			if c.Name != []string{"btc", "bch"}[i] || c.Servers[0].Addr != []*pool{btc, bch}[i].addr() {
				t.Errorf("chain %d is %+v", i, c)
			}
			sessions, faults = append(sessions, c.Sessions), append(faults, c.Servers[0].Fault != "")
		}
		return sessions, faults
	}
	sessions, faults := chains(st)
	if diff := cmp.Diff([]int{2, 1}, sessions) + cmp.Diff([]bool{false, false}, faults); diff != "" {
		t.Error(diff)
	}
	bch.stop()
	testkit.Eventually(t, "the server that is gone is told", func() bool {
		st, _ := status()
		_, faults := chains(st)
		return !faults[0] && faults[1]
	})
	_ = bob.Close()
	testkit.Eventually(t, "the miner that is gone is not counted", func() bool {
		st, _ := status()
		return st.Connections == 3 && st.Phases["mining"] == 2 && st.Chains[1].Sessions == 0
	})
}
