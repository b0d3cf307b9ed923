package operator

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/testkit"
)

// What is answered is described, and the other way round.
func TestPathsAreDescribed(t *testing.T) {
	t.Parallel()
	answered, described := make(map[string][]string), make(map[string][]string)
	for path, methods := range new(API).paths(nil) {
		answered[path] = slices.Sorted(maps.Keys(methods))
	}
	for path, item := range testkit.OpenAPI(t, OpenAPI).Doc.Paths.Map() {
		described[path] = slices.Sorted(maps.Keys(item.Operations()))
	}
	if diff := cmp.Diff(answered, described); diff != "" {
		t.Errorf("(-answered +described):\n%s", diff)
	}
}
