package sealed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding"
)

// batchRows is how many rows are read in one go.
const batchRows = 1024

// columns reads a row group column by column, which is several times as fast as row by row.
type columns struct {
	left    int64 // rows
	numbers []column[int64]
	ip      column[string]
	record  column[[]byte]
}

// The columns in the order of row's fields; numbers are all but ip and record.
const (
	userID = iota
	workerID
	extUserID
	status
	unixTime
	difficulty
	jobID
	networkBits
	height
	sessionID
	nonce
	versionBits
	bitsReached
	server
	epoch
	seq
	numbers // how many those are
)

const (
	ipColumn     = 9
	recordColumn = 17
)

// openColumns opens the columns of numbers that are wanted, or without any wish all there are, and record.
func openColumns(group parquet.RowGroup, wanted ...int) *columns {
	c := &columns{left: group.NumRows(), numbers: make([]column[int64], 0, numbers)}
	for i, chunk := range group.ColumnChunks() {
		switch {
		case i == recordColumn:
			c.record = column[[]byte]{pages: chunk.Pages(), decode: appendBytes}
		case i == ipColumn:
			if len(wanted) == 0 {
				c.ip = column[string]{pages: chunk.Pages(), decode: indexed(appendTexts)}
			}
		case len(wanted) == 0 || slices.Contains(wanted, len(c.numbers)):
			c.numbers = append(c.numbers, column[int64]{pages: chunk.Pages(), decode: indexed(appendNumbers)})
		default:
			c.numbers = append(c.numbers, column[int64]{})
		}
	}
	return c
}

func (c *columns) close() error {
	err := errors.Join(c.ip.close(), c.record.close())
	for i := range c.numbers {
		err = errors.Join(err, c.numbers[i].close())
	}
	return err
}

// values are what some rows have in the columns that were opened.
type values struct {
	numbers [numbers][]int64
	ips     []string
	records [][]byte
}

// next returns the values of the next rows, at most so many, valid until the next call, or io.EOF.
func (c *columns) next(most int) (n int, of values, err error) {
	n = int(min(int64(most), c.left))
	if n == 0 {
		return 0, of, io.EOF
	}
	for i := range c.numbers {
		if of.numbers[i], err = c.numbers[i].next(n); err != nil {
			return 0, of, err
		}
	}
	if of.ips, err = c.ip.next(n); err != nil {
		return 0, of, err
	}
	if of.records, err = c.record.next(n); err != nil {
		return 0, of, err
	}
	c.left -= int64(n)
	return n, of, nil
}

// read fills rows as far as the row group goes, or returns io.EOF. What was in rows is used again.
func (c *columns) read(rows []row) (int, error) {
	n, all, err := c.next(len(rows))
	if err != nil {
		return 0, err
	}
	of := &all.numbers
	for i := range rows[:n] {
		rows[i] = row{
			UserID: int32(of[userID][i]), WorkerID: of[workerID][i], ExtUserID: int32(of[extUserID][i]), Status: int32(of[status][i]),
			Time: of[unixTime][i], Difficulty: int32(of[difficulty][i]), JobID: uint64(of[jobID][i]), Bits: uint32(of[networkBits][i]),
			Height: uint32(of[height][i]), IP: all.ips[i], SessionID: uint32(of[sessionID][i]), Nonce: uint32(of[nonce][i]),
			VersionBits: uint32(of[versionBits][i]), BitsReached: uint32(of[bitsReached][i]), Server: uint32(of[server][i]),
			Epoch: uint32(of[epoch][i]), Seq: uint64(of[seq][i]), Record: all.records[i],
		}
	}
	return n, nil
}

// column reads the values of a column.
type column[T any] struct {
	pages  parquet.Pages // nil: not wanted, and has none
	decode func(dst []T, page parquet.Page) ([]T, error)
	values []T // from at on, those of pages that were not returned
	at     int
}

func (c *column[T]) close() error {
	if c.pages == nil {
		return nil
	}
	return c.pages.Close()
}

// next returns n values, valid until the next call.
func (c *column[T]) next(n int) ([]T, error) {
	if c.pages == nil {
		return nil, nil
	}
	if len(c.values)-c.at < n {
		c.values = c.values[:copy(c.values, c.values[c.at:])]
		c.at = 0
	}
	for len(c.values) < c.at+n {
		page, err := c.pages.ReadPage()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		had := len(c.values)
		c.values, err = c.decode(c.values, page)
		want := page.NumValues()
		parquet.Release(page)
		if err != nil {
			return nil, err
		}
		if int64(len(c.values)-had) != want {
			return nil, fmt.Errorf("page of %d values has %d", want, len(c.values)-had)
		}
	}
	values := c.values[c.at : c.at+n]
	c.at += n
	return values, nil
}

var errIndex = errors.New("no such value in a dictionary")

// indexed returns how to append a page's values, when plain says how for a page that has them itself.
func indexed[T any](plain func(dst []T, page parquet.Page) ([]T, error)) func(dst []T, page parquet.Page) ([]T, error) {
	var dictionary []T // of the row group
	return func(dst []T, page parquet.Page) (_ []T, err error) {
		dict := page.Dictionary()
		if dict == nil {
			return plain(dst, page)
		}
		if dictionary == nil {
			if dictionary, err = plain(nil, dict.Page()); err != nil {
				return dst, err
			}
		}
		data := page.Data()
		for _, i := range data.Int32() {
			if uint(i) >= uint(len(dictionary)) {
				return dst, errIndex
			}
			dst = append(dst, dictionary[i])
		}
		return dst, nil
	}
}

func appendNumbers(dst []int64, page parquet.Page) ([]int64, error) {
	data := page.Data()
	if data.Kind() == encoding.Int64 {
		return append(dst, data.Int64()...), nil
	}
	for _, v := range data.Uint32() {
		dst = append(dst, int64(v))
	}
	return dst, nil
}

func appendTexts(dst []string, page parquet.Page) ([]string, error) {
	values, offsets := byteArrays(page)
	for i := range len(offsets) - 1 {
		dst = append(dst, string(values[offsets[i]:offsets[i+1]]))
	}
	return dst, nil
}

// appendBytes appends nil for values that are not there.
func appendBytes(dst [][]byte, page parquet.Page) ([][]byte, error) {
	levels := page.DefinitionLevels()
	if page.NumNulls() == int64(len(levels)) {
		return append(dst, make([][]byte, len(levels))...), nil
	}
	values, offsets := byteArrays(page)
	i := 0
	for _, level := range levels {
		var value []byte
		if level > 0 {
			if i+1 >= len(offsets) {
				return dst, errIndex
			}
			value = bytes.Clone(values[offsets[i]:offsets[i+1]:offsets[i+1]])
			i++
		}
		dst = append(dst, value)
	}
	return dst, nil
}

func byteArrays(page parquet.Page) (values []byte, offsets []uint32) {
	data := page.Data()
	return data.ByteArray()
}
