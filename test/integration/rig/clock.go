//go:build integration

package rig

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is the clock of one machine, as the programs of the pool that are started with it see it: time.Now of theirs
// is this machine's, moved.
type Clock struct {
	path  string
	slots int // how many readings were written
	now   reading
}

// reading says how a moved clock differs from the machine's: it is what a program reads again whenever it asks for the
// time. The wall clock and the monotonic one are ahead by so many nanoseconds at base, a monotonic time of the machine,
// and since then gain ppm millionths.
type reading struct {
	wall, mono, ppm, base int64
}

// clockVariable names the file of a process' clock.
const clockVariable = "TEST_CLOCK"

// NewClock returns a clock that goes right as yet.
func NewClock(t testing.TB) *Clock {
	t.Helper()
	c := &Clock{path: filepath.Join(t.TempDir(), "clock")}
	if err := os.WriteFile(c.path, make([]byte, 8+2*32), 0o644); err != nil {
		t.Fatal(err)
	}
	return c
}

// Step moves the wall clock as settimeofday does: durations between two readings of a process do not notice.
func (c *Clock) Step(t testing.TB, by time.Duration) {
	t.Helper()
	r := c.now
	r.wall += int64(by)
	c.set(t, r)
}

// Right takes all steps back, and the drift.
func (c *Clock) Right(t testing.TB) {
	t.Helper()
	c.Drift(t, 0)
	r := c.now
	r.wall = 0
	c.set(t, r)
}

// Offset is how far the wall clock is ahead.
func (c *Clock) Offset() time.Duration { return time.Duration(c.now.at(machineNano()).wall) }

// Drift lets the clock run faster by so many millionths from now on. Timers and durations run faster, too; time.Sleep
// and deadlines of sockets do not.
func (c *Clock) Drift(t testing.TB, ppm int64) {
	t.Helper()
	r := c.now.at(machineNano())
	r.ppm = ppm
	c.set(t, r)
}

// at is the same clock, seen from a later base.
func (r reading) at(nano int64) reading {
	gained := (nano - r.base) / 1e6 * r.ppm
	return reading{wall: r.wall + gained, mono: r.mono + gained, ppm: r.ppm, base: nano}
}

// set writes the reading beside the valid one and makes it the valid one then, in one write each.
func (c *Clock) set(t testing.TB, r reading) {
	t.Helper()
	f, err := os.OpenFile(c.path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c.now, c.slots = r, c.slots+1
	slot := int64(c.slots % 2)
	var text []byte
	for _, v := range []int64{r.wall, r.mono, r.ppm, r.base} {
		text = binary.NativeEndian.AppendUint64(text, uint64(v))
	}
	if _, err := f.WriteAt(text, 8+32*slot); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(slot)), 0); err != nil {
		t.Fatal(err)
	}
}

func (c *Clock) env() []string {
	if c == nil {
		return nil
	}
	return []string{clockVariable + "=" + c.path}
}

func machineNano() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // there is no Linux without it
	return ts.Nano()
}

// moved is added to package time of the programs under test.
const moved = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

// page is the file of the clock in memory, with the number of the valid slot in front of two slots.
type page struct {
	valid int64
	slots [2]struct{ wall, mono, ppm, base int64 }
}

var clockPage = mapPage()

func mapPage() *page {
	name, ok := syscall.Getenv("` + clockVariable + `")
	if !ok {
		return new(page)
	}
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("clock " + name + ": " + err.Error())
	}
	defer syscall.Close(fd)
	data, err := syscall.Mmap(fd, 0, int(unsafe.Sizeof(page{})), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("clock " + name + ": " + err.Error())
	}
	return (*page)(unsafe.Pointer(&data[0]))
}

// ahead returns how far both clocks are ahead when the machine's monotonic one shows nano.
func ahead(nano int64) (wall, mono int64) {
	if clockPage == nil {
		return 0, 0 // before this package is initialised
	}
	s := &clockPage.slots[atomic.LoadInt64(&clockPage.valid)&1]
	ppm := atomic.LoadInt64(&s.ppm)
	gained := (nano - atomic.LoadInt64(&s.base)) / 1e6 * ppm
	return atomic.LoadInt64(&s.wall) + gained, atomic.LoadInt64(&s.mono) + gained
}

func movedNow() (sec int64, nsec int32, mono int64) {
	sec, nsec, mono = runtimeNow()
	wall, nano := ahead(mono)
	wall += int64(nsec)
	sec, wall = sec+wall/1e9, wall%1e9
	if wall < 0 {
		sec, wall = sec-1, wall+1e9
	}
	return sec, int32(wall), mono + nano
}

func movedNano() int64 {
	nano := runtimeNano()
	_, mono := ahead(nano)
	return nano + mono
}

// unmoved is how long the machine's clock takes for what is d on the moved one.
func unmoved(d Duration) Duration {
	ppm := atomic.LoadInt64(&clockPage.slots[atomic.LoadInt64(&clockPage.valid)&1].ppm)
	if ppm == 0 || d <= 0 {
		return d
	}
	return max(Duration(float64(d)/(1+float64(ppm)/1e6)), 1)
}
`

// movedTime is what package time of this Go says in other words then: file, what stands there, what is put in its place.
var movedTime = []struct{ file, old, new string }{
	{"time.go", "sec, nsec, mono := runtimeNow()", "sec, nsec, mono := movedNow()"},
	{"time.go", "runtimeNano()-startNano", "movedNano()-startNano"},
	{"sleep.go", "runtimeNano() + int64(d)", "runtimeNano() + int64(unmoved(d))"},
	{"tick.go", "when(d), int64(d)", "when(d), int64(unmoved(d))"},
}

// overlay writes what go build's flag -overlay takes: package time of the Go that is installed, with a clock that can
// be moved.
func overlay(dir string) (path string, err error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	src := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	files := map[string]string{"moved.go": moved}
	for _, m := range movedTime {
		text, ok := files[m.file]
		if !ok {
			original, err := os.ReadFile(filepath.Join(src, m.file))
			if err != nil {
				return "", err
			}
			text = string(original)
		}
		if !strings.Contains(text, m.old) {
			return "", fmt.Errorf("%s of this Go does not say %q", filepath.Join(src, m.file), m.old)
		}
		files[m.file] = strings.ReplaceAll(text, m.old, m.new)
	}
	var list struct{ Replace map[string]string }
	list.Replace = map[string]string{}
	for name, text := range files {
		own := filepath.Join(dir, name)
		if err := os.WriteFile(own, []byte(text), 0o644); err != nil {
			return "", err
		}
		list.Replace[filepath.Join(src, name)] = own
	}
	text, err := json.Marshal(list)
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, text, 0o644)
}
