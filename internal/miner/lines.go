package miner

import (
	"bufio"
	"bytes"
	"io"
)

// maxLine is the longest line a pool may send, in bytes with its line feed.
const maxLine = 64 << 10

// newLines reads lines without their ends, each valid until the next. What ends without a line feed is none.
func newLines(r io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 2<<10), maxLine) // an answer or notification; a notify on mainnet makes it grow
	lines.Split(func(data []byte, atEOF bool) (advance int, line []byte, err error) {
		if bytes.IndexByte(data, '\n') < 0 {
			return 0, nil, nil
		}
		return bufio.ScanLines(data, atEOF)
	})
	return lines
}

// cut keeps what is shown of a text of a pool short: 200 bytes.
func cut(text string) string { return text[:min(len(text), 200)] }
