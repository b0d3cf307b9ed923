package statshttpd

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/bus"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

// A machine behind a farm proxy shows by which connection it came, until it comes by itself; the proxy's address finds it.
func TestThroughAgent(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	s.cfg.Addresses = AddressesFull
	connect := func(name, desc, ip string) {
		e := share.Event{
			Time: noon, Action: share.MinerConnect, UserID: 1, UserName: "ann", WorkerID: share.WorkerID(name), WorkerName: name,
			Agent: "cgminer/4", SessionID: 0x0100beef, Desc: desc,
		}
		if ip != "" {
			e.IP = netip.MustParseAddr(ip)
		}
		if err := s.handleEvent(bus.Message{Value: e.AppendTo(nil)}, true); err != nil {
			t.Fatal(err)
		}
	}
	through := func(query string) map[string]*linkAnswer {
		const path = "/api/v1/workers"
		s.workerOrders = newOrders[listed]() // the clock stands, so a list would not be made again
		w := get(s.Handler(), path+query)
		testkit.OpenAPI(t, openAPI).Check(httptest.NewRequest(http.MethodGet, path+query, nil), w.Result())
		var a workersAnswer
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		got := make(map[string]*linkAnswer)
		for _, w := range a.Workers {
			got[w.Worker] = w.Through
		}
		return got
	}
	want := func(query string, want map[string]*linkAnswer) {
		t.Helper()
		if diff := cmp.Diff(want, through(query)); diff != "" {
			t.Errorf("%q:\n%s", query, diff)
		}
	}

	connect("direct", "new_conn", "10.1.2.3")
	connect("behind", share.FromAgent, "10.1.2.3")
	connect("moves", share.FromAgent, "10.1.2.4")
	connect("nowhere", share.FromAgent, "")
	known := map[string]*linkAnswer{
		"direct": nil, "behind": {"10.1.2.3", "0100beef"}, "moves": {"10.1.2.4", "0100beef"}, "nowhere": {"", "0100beef"},
	}
	want("", known)
	want("?q=10.1.2.3", map[string]*linkAnswer{"behind": known["behind"]})

	connect("moves", "new_conn", "10.1.2.4")
	known["moves"] = nil
	want("", known)
}
