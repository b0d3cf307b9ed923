package miner

import (
	"bufio"
	"errors"
	"fmt"
)

// maxLine is the longest line a pool may send, in bytes with its line feed.
const maxLine = 64 << 10

var errLineTooLong = fmt.Errorf("line longer than %d bytes", maxLine)

// readLine returns the next line without its end, valid until the next call. Lines that fit the reader's buffer are not
// copied; longer ones are gathered up to maxLine.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		long := append([]byte(nil), line...)
		for errors.Is(err, bufio.ErrBufferFull) {
			if len(long) > maxLine {
				return nil, errLineTooLong
			}
			line, err = r.ReadSlice('\n')
			long = append(long, line...)
		}
		line = long
	}
	if err != nil {
		return nil, err
	}
	if len(line) > maxLine {
		return nil, errLineTooLong
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, nil
}

// cut keeps what is shown of a text of a pool short: 200 bytes.
func cut(text string) string { return text[:min(len(text), 200)] }
