//go:build integration

package upgrade

import (
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/sealed"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/test/integration/rig"
)

// TestSealed has a day sealed by one version, verified by the other, sealed again by that when shares came late, and
// computed by the first when only the sealed day is left; and the other way round.
func TestSealed(t *testing.T) {
	t.Parallel()
	previous, current := rig.Previous(t, *from), rig.Current(t)
	for name, by := range map[string][2]*rig.Release{"upgraded": {previous, current}, "rolled back": {current, previous}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newPastDay(t)
			day := fmt.Sprint(d.day)
			d.add(3000)
			d.run(by[0], "sharelogger", "-seal", day)
			d.run(by[1], "sharelogger", "-verify", day)
			d.add(500)
			d.run(by[1], "sharelogger", "-seal", day)
			d.run(by[0], "sharelogger", "-verify", day)
			if err := os.Remove(sharefile.Path(d.log, "BTC", d.day)); err != nil {
				t.Fatal(err)
			}
			for _, r := range []*rig.Release{by[0], by[1]} { // the second finds the rows of the first
				d.run(r, "slparser", "-d", day)
				if err := d.statistics.Compare(t.Context(), d.db); err != nil {
					t.Errorf("computed by %s: %v", r.Version, err)
				}
			}
		})
	}
}

// pastDay is a share log with a day in the past, and a database for its statistics.
type pastDay struct {
	t          *testing.T
	dir, log   string
	db         *sql.DB
	day        sharefile.Day
	offset     int64
	statistics *rig.Statistics
}

const midnight = 1706659200 // of that day

func newPastDay(t *testing.T) *pastDay {
	t.Helper()
	dir := t.TempDir()
	d := &pastDay{t: t, dir: dir, log: filepath.Join(dir, "sharelog"), day: sharefile.DayOf(midnight), statistics: rig.NewStatistics()}
	database := filepath.Join(dir, "pool.db")
	for service, text := range map[string]string{
		"sharelogger": fmt.Sprintf("data_dir = %q\n[kafka]\nbrokers = [\"127.0.0.1:1\"]\n", d.log),
		"slparser":    fmt.Sprintf("network = \"regtest\"\ndata_dir = %q\n[database]\ndsn = %q\n", d.log, "sqlite:"+database),
	} {
		if err := os.WriteFile(filepath.Join(dir, service+".toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if d.db, err = sql.Open("sqlite", database); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.db.Close() })
	return d
}

// add appends shares to the day's file, of all statuses.
func (d *pastDay) add(n int) {
	d.t.Helper()
	w, err := sharefile.OpenWriter(d.log, "BTC", zerolog.Nop())
	if err != nil {
		d.t.Fatal(err)
	}
	for range n {
		d.offset++
		s := share.Share{
			ID: share.ID{Server: 7, Epoch: midnight, Seq: uint64(d.offset)}, JobID: 1, WorkerID: 1 + d.offset%7, UserID: 1 + int32(d.offset%3),
			Status: share.StatusAccept, Time: midnight + d.offset%86400, Difficulty: 3, Bits: 0x17034219, Height: 828000, Nonce: uint32(d.offset),
		}
		if all := share.Statuses(); d.offset%5 == 0 {
			s.Status = all[int(d.offset/5)%len(all)]
		}
		if _, err := w.Add(&bus.Message{Offset: d.offset}, &s, s.AppendBody(nil)); err != nil {
			d.t.Fatal(err)
		}
		d.statistics.Add(&s)
	}
	if _, err := w.Flush(); err != nil {
		d.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		d.t.Fatal(err)
	}
}

// run runs a release's program with the day's configuration, to its end.
func (d *pastDay) run(of *rig.Release, service string, args ...string) {
	d.t.Helper()
	args = append([]string{"-config", filepath.Join(d.dir, service+".toml")}, args...)
	if out, err := exec.CommandContext(d.t.Context(), of.Program(service), args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s of %s %q: %v\n%s", service, of.Version, args, err, out)
	}
	if _, err := os.Stat(sealed.Path(d.log, "BTC", d.day)); err != nil {
		d.t.Fatal(err)
	}
}
