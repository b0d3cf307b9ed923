package gbtmaker

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/job"
)

func TestOutbox(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	long := job.NewRawGBT(bytes.Repeat([]byte("long"), 1000), time.Unix(1_700_000_000, 0))
	short := job.NewRawGBT([]byte("short"), time.Unix(1_700_000_001, 0))
	for _, step := range []struct {
		name string
		do   func(*outbox) error
		want *job.RawGBT
	}{
		{"new", func(*outbox) error { return nil }, nil},
		{"put", func(o *outbox) error { return o.put(long) }, &long},
		{"shorter", func(o *outbox) error { return o.put(short) }, &short},
		{"longer", func(o *outbox) error { return o.put(long) }, &long},
		{"answer half overwritten", func(o *outbox) error {
			_, err := o.file.WriteAt(short.Response, outboxHeader)
			return err
		}, nil},
		{"not sealed", func(o *outbox) error { return errors.Join(o.put(long), o.fill(short.Response)) }, nil},
		{"sealed", func(o *outbox) error { return o.seal(short) }, &short},
		{"clear", func(o *outbox) error { return o.clear() }, nil},
	} {
		o, err := openOutbox(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := step.do(o); err != nil {
			t.Fatal(err)
		}
		if err := o.close(); err != nil {
			t.Fatal(err)
		}
		if o, err = openOutbox(dir); err != nil {
			t.Fatal(err)
		}
		got, ok, err := o.kept()
		if err != nil || ok != (step.want != nil) {
			t.Fatalf("%s: %v, %v", step.name, ok, err)
		}
		if ok {
			if diff := cmp.Diff(*step.want, got); diff != "" {
				t.Errorf("%s: %s", step.name, diff)
			}
		}
		if err := o.close(); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzParseOutbox(f *testing.F) {
	dir := f.TempDir()
	o, err := openOutbox(dir)
	if err != nil {
		f.Fatal(err)
	}
	if err := o.put(job.NewRawGBT([]byte("answer"), time.Unix(1_700_000_000, 0))); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(filepath.Join(dir, "template"))
	if err != nil {
		f.Fatal(err)
	}
	if err := o.close(); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok, err := parseOutbox(b)
		if !ok || err != nil {
			return
		}
		if again := job.NewRawGBT(r.Response, time.Unix(int64(r.CreatedAt), 0)); !cmp.Equal(r, again) {
			t.Errorf("%+v is not a template", r)
		}
	})
}
