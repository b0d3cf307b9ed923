package users

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSnapshot(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, text string
		want       map[string]int32
	}{
		{"whole", `{"alice":1,"Bob":2,"bob":3,"zero":0,"":4}`, map[string]int32{"alice": 1, "bob": 2}},
		{"cut off", `{"alice":1,`, map[string]int32{}},
		{"empty", "", map[string]int32{}},
		{"null", "null", map[string]int32{}},
		{"no ids", `["alice"]`, map[string]int32{}},
		{"large id", `{"alice":2147483648}`, map[string]int32{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "users-open.json"), []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			l := openList(t, DefaultConfig(), dir)
			if diff := cmp.Diff(test.want, l.copyOfIDs()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if l.dirty {
				t.Error("it is to be written again")
			}
		})
	}
}
