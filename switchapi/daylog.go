package switchapi

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// dayLog is a log for people who ask later: a file a UTC day, a JSON object a line. Files older than keep days go.
type dayLog struct {
	dir, name string
	keep      int
	log       zerolog.Logger
	failed    func()

	mu   sync.Mutex
	day  string
	file *os.File
}

// write adds a line. What cannot be written is counted, and keeps nobody from working.
func (d *dayLog) write(now time.Time, lines ...any) {
	if len(lines) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.append(now, lines); err != nil {
		d.failed()
		d.log.Error().Err(err).Str("log", d.name).Msg("not written to the log of the day")
	}
}

func (d *dayLog) append(now time.Time, lines []any) error {
	if day := now.UTC().Format(time.DateOnly); day != d.day || d.file == nil {
		if d.file != nil {
			_ = d.file.Close() // all of it is written
			d.file = nil
		}
		file, err := os.OpenFile(filepath.Join(d.dir, d.name+"-"+day+".jsonl"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return err
		}
		d.day, d.file = day, file
		d.remove(now.AddDate(0, 0, -d.keep).UTC().Format(time.DateOnly))
	}
	var text []byte
	for _, line := range lines {
		one, err := json.Marshal(line)
		if err != nil {
			return err
		}
		text = append(append(text, one...), '\n')
	}
	_, err := d.file.Write(text)
	return err
}

// remove removes the files of days before oldest.
func (d *dayLog) remove(oldest string) {
	names, _ := filepath.Glob(filepath.Join(d.dir, d.name+"-????-??-??.jsonl")) // the pattern is in order
	for _, path := range names {
		if day := strings.TrimPrefix(strings.TrimSuffix(filepath.Base(path), ".jsonl"), d.name+"-"); day < oldest {
			if err := os.Remove(path); err != nil {
				d.log.Warn().Err(err).Msg("an old log is not removed")
			}
		}
	}
}

// Close closes the file.
func (d *dayLog) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file == nil {
		return nil
	}
	return d.file.Close()
}
