package job_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/job"
	"btcpool/internal/testkit"
)

func light(t testing.TB, name string) job.LightGBT {
	t.Helper()
	response := testkit.Data(t, name+".gbt")
	template, err := job.ParseTemplate(response)
	if err != nil {
		t.Fatal(err)
	}
	template.LongPollID = ""
	return job.LightGBT{CreatedAt: 1713571901, Hash: strings.Repeat("0a", 32), Template: template}
}

func TestLightGBT(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"core", "empty", "btcd", "old"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := light(t, name)
			text := want.AppendTo(nil)
			testkit.Golden(t, name+".lightgbt", append(text, '\n'))
			got, err := job.ParseLightGBT(text)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("read back: %v\n%s", err, diff)
			}
		})
	}
}

func TestParseLightGBTRefuses(t *testing.T) {
	t.Parallel()
	valid := string(light(t, "core").AppendTo(nil))
	for _, tt := range []struct{ name, old, with, want string }{
		{"unchanged", "", "", ""},
		{"unknown key", `{"created`, `{"new":[{}],"created`, ""},
		{"not JSON", `{"created`, `{created`, "not valid JSON"},
		{"array", valid, "[]", "not an object"},
		{"time missing", `created_at_ts`, `created`, "created_at_ts"},
		{"hash missing", `gbthash`, `x`, "gbthash"},
		{"hash short", `"0a0a`, `"0a`, "gbthash"},
		{"height missing", `"height"`, `"x"`, "height"},
		{"bits without a target", `"bits":"`, `"bits":"ff`, "bits"},
		{"a rule that must be understood", `"!segwit"`, `"!new"`, `"!new" must be understood`},
		{"transactions as a list", `"transactions":2`, `"transactions":[]`, "transactions"},
		{"transactions missing", `"transactions"`, `"x"`, "transactions"},
		{"too many transactions", `"transactions":2`, `"transactions":20000`, "transactions"},
		{"branch missing", `"merkle_branch"`, `"x"`, "merkle_branch"},
		{"branch of fewer", `"transactions":2`, `"transactions":1`, "not of that many"},
		{"branch of more", `"transactions":2`, `"transactions":4`, "not of that many"},
		{"half a hash", `"merkle_branch":"`, `"merkle_branch":"00`, "merkle_branch"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(valid, tt.old) {
				t.Fatalf("%s has no %s", valid, tt.old)
			}
			got, err := job.ParseLightGBT([]byte(strings.Replace(valid, tt.old, tt.with, 1)))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if err != nil && got.Template != nil {
				t.Error("half a value beside the error")
			}
		})
	}
}

func FuzzParseLightGBT(f *testing.F) {
	testkit.Seeds(f, "*.lightgbt")
	f.Fuzz(func(t *testing.T, in []byte) {
		l, err := job.ParseLightGBT(in)
		if err != nil {
			return
		}
		l.Template.LongPollID = "" // read if it is there, but never written
		again, err := job.ParseLightGBT(l.AppendTo(nil))
		if diff := cmp.Diff(l, again); err != nil || diff != "" {
			t.Fatalf("%q is not stable: %v\n%s", in, err, diff)
		}
	})
}
