package blkmaker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"btcpool/internal/durable"
	"btcpool/internal/job"
)

// A height's file holds frames (package durable) in the order in which things came. The body of each is
//
//	u8  kind
//	    a raw transaction; a template, see addTemplate; or a job as in its topic
//
// Transactions count from 0. The file's name is <number>-<height>.frames.
const (
	recordTransaction = 't'
	recordTemplate    = 'g'
	recordJob         = 'j'
)

func appendRecord(dst []byte, kind byte, payload []byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, durable.FrameHead)...)
	dst = append(append(dst, kind), payload...)
	durable.SealFrame(dst[start:])
	return dst
}

// read takes up the whole records at the start of b and returns their size.
func (h *height) read(b []byte) int {
	for at := 0; ; {
		body, size, err := durable.CutFrame(b[at:], 1, maxHeightBytes)
		if err != nil || !h.take(body[0], body[1:]) {
			return at
		}
		at += size
	}
}

// take takes up a record, unless it makes no sense: false.
func (h *height) take(kind byte, payload []byte) bool {
	switch kind {
	case recordTransaction:
		h.addTransaction(string(payload))
		return true
	case recordTemplate:
		return h.addTemplate(payload)
	case recordJob:
		j, err := job.ParseStratumJob(payload)
		if err == nil {
			h.addJob(j, len(payload))
		}
		return err == nil
	}
	return false
}

func (c *cache) path(number uint64, height int32) string {
	return filepath.Join(c.dir, fmt.Sprintf("%d-%d.frames", number, height))
}

// load reads the files. What cannot be read of one, its end as a rule, is cut
// off: Kafka still has what came last.
func (c *cache) load() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		var number uint64
		var of int32
		if filepath.Ext(e.Name()) == ".cache" { // written by a release whose records were no frames
			c.remove(filepath.Join(c.dir, e.Name()))
			continue
		}
		if n, _ := fmt.Sscanf(e.Name(), "%d-%d.frames", &number, &of); n != 2 || c.path(number, of) != filepath.Join(c.dir, e.Name()) {
			continue
		}
		h := newHeight(of)
		h.path = c.path(number, of)
		info, err := e.Info()
		if err != nil {
			return err
		}
		h.used = info.ModTime()
		content, err := os.ReadFile(h.path)
		if err != nil {
			return err
		}
		if good := h.read(content); good < len(content) {
			c.log.Warn().Str("file", h.path).Int("bytes", len(content)-good).Msg("end of the file cut off: it cannot be read")
			if err := os.Truncate(h.path, int64(good)); err != nil {
				return err
			}
		}
		if h.file, err = os.OpenFile(h.path, os.O_APPEND|os.O_WRONLY, 0); err != nil {
			return err
		}
		c.heights = append(c.heights, h)
		c.next = max(c.next, number+1)
	}
	return nil
}

// write appends records to the height's file. A height whose file cannot be written is kept in memory only.
func (c *cache) write(h *height, records []byte) {
	if h.file == nil {
		return
	}
	_, err := h.file.Write(records)
	if err == nil { // the clock of messages may be another than the disk's
		err = os.Chtimes(h.path, time.Time{}, h.used)
	}
	if err != nil {
		c.failed(h, err)
		h.file.Close()
		h.file = nil
	}
}

func (c *cache) failed(h *height, err error) {
	c.metrics.diskErrors.Inc()
	c.log.Error().Err(err).Str("file", h.path).Msg("jobs and templates not on disk: a restart will have to find them in Kafka; check data_dir")
}

func (c *cache) drop(h *height) {
	if h.file != nil {
		h.file.Close()
	}
	c.remove(h.path)
}

func (c *cache) remove(path string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn().Err(err).Msg("old jobs and templates not removed from data_dir")
	}
}

func (c *cache) close() error {
	var errs []error
	for _, h := range c.heights {
		if h.file != nil {
			errs = append(errs, h.file.Close())
		}
	}
	return errors.Join(errs...)
}
