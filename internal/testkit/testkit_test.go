package testkit

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"btcpool/internal/config"
)

// recorder keeps what a check complains about.
type recorder struct {
	testing.TB
	said []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(_ string, args ...any) {
	r.said = append(r.said, fmt.Sprint(args[len(args)-1]))
}

type common struct {
	Admin string `toml:"admin"`
}

type chain struct {
	Name string `toml:"name"`
	common
}

type sample struct {
	common
	Interval config.Duration `toml:"interval"`
	Networks []netip.Prefix  `toml:"networks"`
	Chains   []chain         `toml:"chains"`
	One      *chain          `toml:"one"`
	Static   map[string]int  `toml:"static"`
	secret   string
}

func TestSampleNames(t *testing.T) {
	t.Parallel()
	_ = sample{secret: "not a key"}.secret
	whole := "admin = \"\"\ninterval = \"1s\" # of all\n# networks = []\nstatic = {}\n# [[chains]]\n# name = \"a\"\n# admin = \"b\"\n[one]\nname = \"c\"\nadmin = \"\"\n"
	for text, want := range map[string]string{
		whole: "",
		strings.ReplaceAll(whole, "name", "nick"):         "chains.name one.name",
		strings.ReplaceAll(whole, "# networks", "# nets"): "networks",
		strings.ReplaceAll(whole, "[one]", ""):            "one.name one.admin",
	} {
		path := filepath.Join(t.TempDir(), "sample.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var r recorder
		SampleNames(&r, path, sample{})
		if got := strings.Join(r.said, " "); got != want {
			t.Errorf("%s\ngot %q, want %q", text, got, want)
		}
		r.said = nil
		SampleNames(&r, path, sample{}, "one.", "chains.name", "networks", "interval")
		if got := r.said[len(r.said)-1]; got != "interval" {
			t.Errorf("an exception that is named is not complained about: %q", r.said)
		}
	}
}
