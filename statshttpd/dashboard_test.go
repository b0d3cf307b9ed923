package statshttpd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"btcpool/internal/service"
)

func TestDashboardFaults(t *testing.T) {
	t.Parallel()
	good := Dashboard{
		Name: "Pool", AccentDark: "#F7931a", Links: []Link{{Text: "Mail", URL: "mailto:pool@example.org"}, {Text: "Help", URL: "https://example.org/"}},
		Explorers: map[string]string{"mainnet": "https://example.org/?b={hash}", "nmc": "http://10.0.0.1/{height}", "rsk": ""},
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for fault, spoil := range map[string]func(*Dashboard){
		"name:":                      func(d *Dashboard) { d.Name = strings.Repeat("x", 65) },
		"welcome:":                   func(d *Dashboard) { d.Welcome = "\xff" },
		`accent_dark = "red"`:        func(d *Dashboard) { d.AccentDark = "red" },
		`accent_light = "#fff;}`:     func(d *Dashboard) { d.AccentLight = "#fff;} body { display: none" },
		"links: at most 12":          func(d *Dashboard) { d.Links = make([]Link, 13) },
		"links[0].text: must not":    func(d *Dashboard) { d.Links[0].Text = "" },
		`links[1].url: "javascript`:  func(d *Dashboard) { d.Links[1].URL = "javascript:alert(1)" },
		`links[1].url: "//example`:   func(d *Dashboard) { d.Links[1].URL = "//example.org" },
		`explorers.x: "javascript`:   func(d *Dashboard) { d.Explorers = map[string]string{"x": "javascript:alert('{hash}')"} },
		`explorers.x: "https://ex`:   func(d *Dashboard) { d.Explorers = map[string]string{"x": "https://example.org/"} },
		`explorers.x: "https://{ha`:  func(d *Dashboard) { d.Explorers = map[string]string{"x": "https://{hash"} },
		`explorers.x: "data:text/ht`: func(d *Dashboard) { d.Explorers = map[string]string{"x": "data:text/html,{hash}"} },
	} {
		bad := good
		bad.Links = append([]Link{}, good.Links...)
		spoil(&bad)
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%v, want %q", err, fault)
		}
	}
}

// What the pages import must be one value whatever is configured, and colours must be such that they can be seen.
func TestDashboardFiles(t *testing.T) {
	t.Parallel()
	files := Dashboard{Welcome: "</script>\u2028`${1}`", AccentDark: "#000000", AccentLight: "#ffffff"}.files()
	text := strings.TrimSuffix(strings.TrimPrefix(string(files["settings.js"]), "export default "), ";\n")
	var settings struct{ Welcome struct{ EN, ZH string } }
	if err := json.Unmarshal([]byte(text), &settings); err != nil || settings.Welcome.ZH != "</script>\u2028`${1}`" || strings.ContainsAny(text, "<\u2028") {
		t.Errorf("%s: %v", text, err)
	}
	for ground, of := range map[string]string{"#1c2028": "#000000", "#f3f3ef": "#ffffff", "#ffffff": "#ffff00"} {
		on, _ := parseColour(ground)
		c, _ := parseColour(of)
		for _, least := range []float64{3, 4.5} {
			if got := contrast(c.against(on, least), on); got < least || got > least*1.25 {
				t.Errorf("%s on %s has a contrast of %.2f, want %.2f", of, ground, got, least)
			}
		}
	}
	if got := (Dashboard{}).theme(); len(got) > 0 {
		t.Errorf("without colours there is %s", got)
	}
}

func TestLogo(t *testing.T) {
	t.Parallel()
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 2, 2))); err != nil {
		t.Fatal(err)
	}
	const svg = `<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>`
	for _, c := range []struct {
		body, kind, fault string
	}{
		{body: picture.String(), kind: "image/png"},
		{body: svg, kind: "image/svg+xml"},
		{body: `<html><svg xmlns="http://www.w3.org/2000/svg"/></html>`, fault: "is no SVG"},
		{body: svg + "<", fault: "is no SVG"},
		{body: "<svg>", fault: "is no SVG"},
		{body: "", fault: "is no SVG"},
		{body: "GIF89a", fault: "is no SVG"},
		{body: svg + strings.Repeat(" ", maxLogo), fault: "more than 24 KB"},
	} {
		file := filepath.Join(t.TempDir(), "logo")
		if err := os.WriteFile(file, []byte(c.body), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Dashboard{Logo: file}.readLogo()
		if c.fault != "" {
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%.40q: %v, want %q", c.body, err, c.fault)
			}
			continue
		}
		if err != nil || got.kind != c.kind {
			t.Errorf("%.40q: %+v %v, want %s", c.body, got, err, c.kind)
			continue
		}
		s := newTestService(t, noon)
		s.logo = got
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/logo", nil))
		if w.Header().Get("Content-Type") != c.kind || !strings.Contains(w.Header().Get("Content-Security-Policy"), "sandbox") || w.Body.String() != c.body {
			t.Errorf("%.40q is answered %v", c.body, w.Header())
		}
	}
	cfg := DefaultConfig()
	cfg.Listen, cfg.Database.DSN, cfg.Dashboard.Logo = "127.0.0.1:0", "sqlite:"+filepath.Join(t.TempDir(), "pool.db"), "/nowhere/logo.svg"
	if _, err := New(cfg, service.Deps{}); err == nil || !strings.Contains(err.Error(), "dashboard.logo") {
		t.Errorf("a logo that is not there: %v", err)
	}
}

// TestSilentFirst has those who say nothing stand first, however the pages of the list are cut.
func TestSilentFirst(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	s.farm(t)
	read := func(query string) (names []string, total int) {
		t.Helper()
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/workers?state=all&sort=name&"+query, nil))
		var a workersAnswer
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatalf("%s: %v", w.Body, err)
		}
		for _, one := range a.Workers {
			names = append(names, one.Worker)
		}
		return names, a.Total
	}
	all, total := read("first=silent")
	if want := []string{"s17-retired", "s19-old"}; !slices.Equal(all[:2], want) || slices.Contains(all[2:], want[0]) || slices.Contains(all[2:], want[1]) {
		t.Errorf("%v do not begin with %v", all, want)
	}
	if sorted, n := read(""); n != total || len(sorted) != len(all) || slices.Equal(sorted, all) {
		t.Errorf("%d of %d workers, want %d, in another order", len(sorted), n, total)
	}
	for _, limit := range []int{1, 2, 3, 7} {
		var cut []string
		for offset := 0; offset < total; offset += limit {
			page, n := read(fmt.Sprintf("first=silent&limit=%d&offset=%d", limit, offset))
			if n != total {
				t.Errorf("limit %d, offset %d: %d in all, want %d", limit, offset, n, total)
			}
			cut = append(cut, page...)
		}
		if !slices.Equal(cut, all) {
			t.Errorf("by %d: %v, want %v", limit, cut, all)
		}
	}
}
