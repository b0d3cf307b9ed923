package sserver_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"btcpool/internal/testkit"
)

const (
	pingLine = `{"id":"sync","method":"mining.ping","params":[]}`
	pongLine = `{"id":"sync","result":"pong","error":null}`
)

// Dialogues are files of lines sent (>) and lines received (<) in between. SID is the session's extranonce1.
func TestDialogues(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	j := p.newJob(1, 100)
	j.Time, j.MinTime = 0x70000000, 0x6fff0000
	j.MerkleBranch = j.MerkleBranch[:1]
	p.TakeJob(j)
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c := p.dial()
			var got bytes.Buffer
			for line := range strings.Lines(string(testkit.Data(t, filepath.Base(file)))) {
				if strings.HasPrefix(line, "> ") {
					got.WriteString(line)
					if !c.say(&got, line[2:]) {
						got.WriteString("< (end)\n")
						break
					}
				}
			}
			text := got.Bytes()
			if c.extraNonce1 != "" {
				text = bytes.ReplaceAll(text, []byte(c.extraNonce1), []byte("SID"))
			}
			testkit.Golden(t, filepath.Base(file), text)
		})
	}
}

// say sends a line and writes down what comes back: the answers, and with the second ping the notifications behind
// them. It is false when the connection has ended.
func (c *client) say(got *bytes.Buffer, line string) bool {
	return c.exchange(got, line) && c.exchange(got, "")
}

func (c *client) exchange(got *bytes.Buffer, line string) bool {
	c.send(line + pingLine + "\n")
	for {
		answer, err := c.readLine()
		if err != nil {
			return false
		}
		if strings.TrimSpace(answer) == pongLine {
			return true
		}
		if _, rest, ok := strings.Cut(answer, `["mining.notify","`); ok {
			c.extraNonce1 = rest[:8]
		}
		got.WriteString("< " + answer)
	}
}
