package statshttpd

import (
	"compress/gzip"
	"encoding/csv"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/google/go-cmp/cmp"

	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

func TestCSV(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	s.small(t)
	for _, name := range []string{"=cmd|' /C calc'!A0", "+1+cmd", "-7", "@sum", "plain,\"quoted\"\nname", "<img src=x>"} {
		id := s.connect(t, noon, 3, "=eve", name, "\t=agent")
		s.mine(t, share.Share{UserID: 3, WorkerID: id, Time: noon.Unix(), Status: share.StatusAccept})
	}
	h := s.Handler()
	read := func(target string) (rows [][]string) {
		t.Helper()
		w := get(h, target)
		testkit.OpenAPI(t, openAPI).Check(httptest.NewRequest(http.MethodGet, target, nil), w.Result())
		if got := w.Header().Get("Content-Type"); got != "text/csv; charset=utf-8" {
			t.Fatalf("%s: %d %s: %s", target, w.Code, got, w.Body)
		}
		rows, err := csv.NewReader(w.Body).ReadAll() // refuses rows of different lengths
		if err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		return rows
	}
	workers := read("/api/v1/workers?format=csv&state=all&sort=name&user==eve")
	var names []string
	for _, row := range workers[1:] {
		names = append(names, row[0]+" "+row[2]+" "+row[4])
	}
	want := []string{
		"'=eve '+1+cmd '\t=agent", "'=eve -7 '\t=agent", "'=eve <img src=x> '\t=agent", "'=eve '=cmd|' /C calc'!A0 '\t=agent", "'=eve '@sum '\t=agent",
		"'=eve plain,\"quoted\"\nname '\t=agent",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	if head := strings.Join(workers[0], " "); !strings.Contains(head, "best_share.difficulty best_share.time") || !strings.Contains(head, "hashrate.1d shares_1h.accepted.shares") {
		t.Error(head)
	}
	for target, lines := range map[string]int{
		"users?state=all": 1 + 3, "blocks": 1 + 3, "rounds": 1 + 2, "merged-blocks": 1, "servers": 1 + 2,
		"pool/history": 1 + 1440, "users/ann/history?step=day&limit=2": 1 + 2, "pool/rejects?limit=3": 1 + 3,
	} {
		sep := "?"
		if strings.Contains(target, "?") {
			sep = "&"
		}
		if rows := read("/api/v1/" + target + sep + "format=csv"); len(rows) != lines {
			t.Errorf("%s: %d lines, want %d", target, len(rows), lines)
		}
	}
	rejects := read("/api/v1/pool/rejects?limit=3&format=csv")
	if diff := cmp.Diff([][]string{
		{"time", "accepted", "stale", "rejected", "Duplicate share"},
		{"2026-03-14T10:00:00Z", "1002", "7", "18", "18"},
		{"2026-03-14T11:00:00Z", "1001", "7", "9", "9"},
		{"2026-03-14T12:00:00Z", "1000", "7", "0", "0"},
	}, rejects); diff != "" {
		t.Error(diff)
	}
}

func TestCompressionAndTags(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	s.small(t)
	h := s.Handler()
	const target = "/api/v1/workers"
	plain := get(h, target)
	for _, target := range []string{target, "/assets/app.js"} { // what is made for one, and a file that is kept compressed
		plain := get(h, target)
		for range 2 {
			for name, reader := range map[string]func(io.Reader) (io.Reader, error){
				"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
				"br":   func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil },
			} {
				packed := get(h, target, "Accept-Encoding", name)
				if packed.Header().Get("Content-Encoding") != name || packed.Body.Len() >= plain.Body.Len() || !slices.Contains(packed.Header().Values("Vary"), "Accept-Encoding") {
					t.Errorf("%s as %s: headers %v", target, name, packed.Header())
				}
				if packed.Header().Get("ETag") != plain.Header().Get("ETag") {
					t.Errorf("%s as %s is something else", target, name)
				}
				z, err := reader(packed.Body)
				if err != nil {
					t.Fatal(err)
				}
				if body, err := io.ReadAll(z); err != nil || string(body) != plain.Body.String() {
					t.Errorf("%s as %s: %d bytes of %d, %v", target, name, len(body), plain.Body.Len(), err)
				}
			}
		}
	}
	if w := get(h, "/favicon.svg", "Accept-Encoding", "br, gzip"); w.Header().Get("Content-Encoding") != "" {
		t.Errorf("%d bytes are packed", w.Body.Len())
	}
	tag := plain.Header().Get("ETag")
	for _, known := range []string{tag, `"x", ` + tag, "*", strings.TrimPrefix(tag, "W/")} {
		if w := get(h, target, "If-None-Match", known); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
			t.Errorf("%s: status %d, %d bytes", known, w.Code, w.Body.Len())
		}
	}
	for _, other := range []string{"", `"x"`, "W/"} {
		if w := get(h, target, "If-None-Match", other); w.Code != http.StatusOK {
			t.Errorf("%s: status %d", other, w.Code)
		}
	}
}

func TestCodingFor(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]coding{
		"": "", "identity": "", "gzip": "gzip", "br": "br", "gzip, deflate, br, zstd": "br", "GZIP;Q=1": "gzip", "br;q=1, gzip;q=0.5": "br",
		"br;q=0.5, gzip;q=0.8": "gzip", "br;q=0, gzip": "gzip", "*": "br", "*;q=0.1, br;q=0": "gzip", "*;q=0": "", "gzip;q=0": "", "gzip;q=0.0, *;q=0": "",
		"gzip;q=x": "", "gzip;q=2": "", "gzip;q=nan": "", "gzip;q=-1": "", "gzip;level=1": "", "identity;q=1, gzip;q=0.5": "", "identity;q=0.5, gzip": "gzip",
		"identity, gzip": "gzip", "br ; q=0.3 ,gzip ; q=0.2": "br", ";q=1,,,": "", "x-gzip": "",
	} {
		if got := codingFor(header); got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	ask := func(method, origin, path string, allowed ...string) *httptest.ResponseRecorder {
		s := newTestService(t, noon)
		s.cfg.CORSOrigins = allowed
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Origin", origin)
		if method == http.MethodOptions {
			r.Header.Set("Access-Control-Request-Method", "GET")
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		return w
	}
	const mine, other = "https://mine.example", "https://other.example"
	for _, test := range []struct {
		origin  string
		allowed []string
		want    string
	}{
		{mine, nil, ""},
		{mine, []string{mine}, mine},
		{other, []string{mine}, ""},
		{other, []string{mine, "*"}, "*"},
	} {
		for _, method := range []string{http.MethodGet, http.MethodOptions} {
			w := ask(method, test.origin, "/api/v1/pool", test.allowed...)
			if got := w.Header().Get("Access-Control-Allow-Origin"); got != test.want {
				t.Errorf("%s from %s, allowed %q: %q", method, test.origin, test.allowed, got)
			}
			if policy := w.Header().Get("Cross-Origin-Resource-Policy"); (policy == "cross-origin") != (test.want != "") {
				t.Errorf("%s from %s: %s", method, test.origin, policy)
			}
			if code := w.Code; method == http.MethodOptions && (code == http.StatusNoContent) != (test.want != "") {
				t.Errorf("preflight from %s: %d", test.origin, code)
			}
		}
	}
	if w := ask(http.MethodGet, mine, "/", mine); w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Error("what is not the API may be read")
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		ip                 string
		masked, full, none string
	}{
		{"192.0.2.77", "192.0.2.0/24", "192.0.2.77", ""},
		{"::ffff:192.0.2.77", "192.0.2.0/24", "192.0.2.77", ""},
		{"2001:db8:1:2:3::7", "2001:db8:1::/48", "2001:db8:1:2:3::7", ""},
	} {
		ip := netip.MustParseAddr(test.ip)
		for a, want := range map[Addresses]string{AddressesMasked: test.masked, AddressesFull: test.full, AddressesNone: test.none} {
			if got := a.show(ip); got != want {
				t.Errorf("%s %s is %q, want %q", a, test.ip, got, want)
			}
		}
	}
	if got := AddressesFull.show(netip.Addr{}); got != "" {
		t.Errorf("no address is %q", got)
	}
}

// An order that takes long to make answers while it is made again, and what is young is not made again.
func TestOrdersAreKept(t *testing.T) {
	t.Parallel()
	o := newOrders[int]()
	made, let := 0, make(chan struct{}, 1)
	slow := func(old *order[int]) *order[int] {
		<-let
		made++
		for begin := time.Now(); time.Since(begin) <= orderCheap; {
		}
		return &order[int]{rows: []int{made}}
	}
	ask := func(after time.Duration, want int) {
		t.Helper()
		if got := o.get("x", noon.Add(after), slow).rows[0]; got != want {
			t.Errorf("%s: order %d, want %d", after, got, want)
		}
	}
	let <- struct{}{}
	ask(0, 1)
	ask(orderFresh-1, 1) // or it would wait for ever
	ask(orderFresh+1, 1) // begins the next one
	ask(orderFresh+2, 1)
	let <- struct{}{}
	if err := o.wait(); err != nil {
		t.Fatal(err)
	}
	ask(orderFresh+3, 2)
	let <- struct{}{}
	ask(10*orderStale, 3) // nobody is shown what is that old
}
