package switchapi

import (
	"encoding/json"
	"errors"
	"io"
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
	file *os.File // nil: none is open
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
		if err := d.close(); err != nil {
			return err
		}
		file, err := openLines(filepath.Join(d.dir, d.name+"-"+day+".jsonl"))
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
	if err != nil {
		err = errors.Join(err, d.close()) // the next begins a line of its own
	}
	return err
}

// openLines opens a file to append lines. A last line that was cut off is ended.
func openLines(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	end, err := file.Seek(0, io.SeekEnd)
	if last := []byte{'\n'}; err == nil && end > 0 {
		if _, err = file.ReadAt(last, end-1); err == nil && last[0] != '\n' {
			_, err = file.WriteString("\n")
		}
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
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
	return d.close()
}

func (d *dayLog) close() error {
	if d.file == nil {
		return nil
	}
	file := d.file
	d.file = nil
	return file.Close()
}
