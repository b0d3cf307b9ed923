package blkmaker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"btcpool/internal/job"
)

// A height's file holds records in the order in which things came:
//
//	u32 length of the payload, little-endian
//	u32 CRC-32C of kind and payload
//	u8  kind
//	    payload: a raw transaction; a template, see addTemplate; a job as in its topic
//
// Transactions count from 0. The file's name is <number>-<height>.cache.
const (
	recordTransaction = 't'
	recordTemplate    = 'g'
	recordJob         = 'j'

	recordHead = 4 + 4 + 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendRecord(dst []byte, kind byte, payload []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	sum := crc32.Update(crc32.Checksum([]byte{kind}, castagnoli), castagnoli, payload)
	dst = binary.LittleEndian.AppendUint32(dst, sum)
	dst = append(dst, kind)
	return append(dst, payload...)
}

// read takes up the whole records at the start of b and returns their size.
func (h *height) read(b []byte) int {
	for at := 0; ; {
		rest := b[at:]
		if len(rest) < recordHead {
			return at
		}
		size := uint64(recordHead) + uint64(binary.LittleEndian.Uint32(rest))
		if uint64(len(rest)) < size || crc32.Checksum(rest[recordHead-1:size], castagnoli) != binary.LittleEndian.Uint32(rest[4:]) {
			return at
		}
		payload := rest[recordHead:size]
		switch rest[recordHead-1] {
		case recordTransaction:
			h.addTransaction(string(payload))
		case recordTemplate:
			if !h.addTemplate(payload) {
				return at
			}
		case recordJob:
			j, err := job.ParseStratumJob(payload)
			if err != nil {
				return at
			}
			h.addJob(j, len(payload))
		default:
			return at
		}
		at += int(size)
	}
}

func (c *cache) path(number uint64, height int32) string {
	return filepath.Join(c.dir, fmt.Sprintf("%d-%d.cache", number, height))
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
		if n, _ := fmt.Sscanf(e.Name(), "%d-%d.cache", &number, &of); n != 2 || c.path(number, of) != filepath.Join(c.dir, e.Name()) {
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

// write appends records to the height's file. A height whose file cannot be
// written is kept in memory only.
func (c *cache) write(h *height, records []byte) {
	if h.file == nil {
		return
	}
	if _, err := h.file.Write(records); err != nil {
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
	if err := os.Remove(h.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn().Err(err).Msg("old jobs and templates not removed from data_dir")
	}
}

func (c *cache) close() {
	for _, h := range c.heights {
		if h.file != nil {
			h.file.Close()
		}
	}
}
