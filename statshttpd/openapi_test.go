package statshttpd

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/testkit"
)

// TestOpenAPI asks for every path that is described, with each parameter at its bounds and beyond.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	d := testkit.OpenAPI(t, openAPI)
	full, empty := newTestService(t, noon), newTestService(t, noon)
	full.small(t)
	empty.look(t)
	described := slices.Sorted(maps.Keys(d.Doc.Paths.Map()))
	answered := []string{eventsPath}
	for _, e := range full.endpoints() {
		answered = append(answered, e.path)
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(answered)), described); diff != "" {
		t.Errorf("paths (-answered +described):\n%s", diff)
	}
	example := strings.NewReplacer("{user}", "ann", "{worker}", "rig.1")
	for path, item := range d.Doc.Paths.Map() {
		target := d.Doc.Servers[0].URL + example.Replace(path)
		ask := func(s *Service, query string, want ...int) {
			t.Helper()
			r, w := httptest.NewRequest(http.MethodGet, target+query, nil), httptest.NewRecorder()
			if path == eventsPath { // who is gone hears what there is once
				gone, cancel := context.WithCancel(t.Context())
				cancel()
				r = r.WithContext(gone)
			}
			s.Handler().ServeHTTP(w, r)
			if !slices.Contains(want, w.Code) {
				t.Errorf("%s%s: status %d: %s", target, query, w.Code, w.Body)
			}
			d.Check(r, w.Result())
		}
		ask(full, "", 200)
		ask(empty, "", 200, 404)
		ask(full, "?unheard=of", 400)
		for _, p := range item.Get.Parameters {
			schema := p.Value.Schema.Value
			switch {
			case p.Value.In != "query":
			case schema.Min != nil:
				for _, good := range []float64{*schema.Min, *schema.Max} {
					ask(full, fmt.Sprintf("?%s=%.0f", p.Value.Name, good), 200)
				}
				for _, bad := range []float64{*schema.Min - 1, *schema.Max + 1} {
					ask(full, fmt.Sprintf("?%s=%.0f", p.Value.Name, bad), 400)
				}
			case schema.Enum != nil:
				for _, good := range schema.Enum {
					ask(full, fmt.Sprintf("?%s=%s", p.Value.Name, good), 200)
				}
			case p.Value.Name == "worker":
				ask(full, "?user=ann&worker=rig.1", 200)
				ask(full, "?worker=rig.1", 400)
			default:
				ask(full, "?"+p.Value.Name+"=x", 200)
			}
		}
	}
}
