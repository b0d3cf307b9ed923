package slparser

import (
	"fmt"
	"io"
	"os"
	"time"

	"btcpool/internal/sharefile"
)

// progress is a line on a terminal, written over once a second.
type progress struct {
	w     io.Writer // nil: there is no terminal
	day   sharefile.Day
	start time.Time
	told  time.Time
}

func newProgress(w io.Writer, day sharefile.Day) *progress {
	now := time.Now()
	return &progress{w: w, day: day, start: now, told: now}
}

// read tells how much of the file is behind.
func (p *progress) read(bytes, of int64) {
	if !p.due() {
		return
	}
	took := p.told.Sub(p.start)
	left := time.Duration(float64(took) * float64(of-bytes) / float64(max(bytes, 1))).Round(time.Second)
	p.tell("%s %3d%% of %d MB, %d MB/s, %s left", bar(bytes, of), 100*bytes/max(of, 1), of/1e6, int64(float64(bytes)/1e6/took.Seconds()), left)
}

// wrote tells how many workers, users and the pool have their rows.
func (p *progress) wrote(n, of int) {
	if p.due() {
		p.tell("%s %3d%% of the rows of %d", bar(int64(n), int64(of)), 100*n/max(of, 1), of)
	}
}

func (p *progress) due() bool {
	now := time.Now()
	if p.w == nil || now.Sub(p.told) < time.Second {
		return false
	}
	p.told = now
	return true
}

const clearLine = "\r\x1b[K"

func (p *progress) tell(format string, args ...any) {
	fmt.Fprintf(p.w, clearLine+"%d "+format, append([]any{p.day}, args...)...)
}

// end leaves the line to whatever comes next.
func (p *progress) end() {
	if p.w != nil && p.told != p.start {
		fmt.Fprint(p.w, clearLine)
	}
}

func bar(n, of int64) string {
	const width = 20
	done := int(width * n / max(of, 1))
	b := []byte("[                    ]")
	for i := range min(done, width) {
		b[1+i] = '='
	}
	return string(b)
}

// terminalOrNil is f when somebody looks at it.
func terminalOrNil(f *os.File) io.Writer {
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return f
}
