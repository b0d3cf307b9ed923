// Package dialogues_test plays what miners' firmware says to an sserver and holds the answers against what that
// firmware can use. The facts are from the sources that each file names.
//
// A file of testdata is a dialogue; it starts when the pool has a job, and at its end the connection must live and the
// pool have nothing more to say.
//
//	# a comment
//	% a line of sserver's configuration
//	> a line that the miner sends; those in a row are one packet
//	>> a part of a line, alone in a packet
//	< the line that the pool must say next
//	! something that happens:
//	! job [branches=N] [coinbase=N]      another job on the same block
//	! block [branches=N] [coinbase=N]    a job on the next block
//	! share JOB nonce2=HEX [bits=HEX] [time=+N] [below=D]
//	                                     the miner finds $nonce at $time
//	! differ JOB JOB                     they are not the same work
//	! reconnect                          the miner loses its connection
//	! silence                            the pool has nothing to say
//	! limit [line=N] [coinbase=N] [branches=N]
//	                                     what has come so far was no larger
//
// A line that ends in \r or \0 is sent so. $word stands for a text without quotes: in what the pool says for any, if it is
// new, and for the same after that. $_ stands for anything. $nonce has 8 digits, $NONCE capital ones, $n no leading
// zeros.
package dialogues_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"btcpool/internal/testkit"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDialogues(t *testing.T) {
	t.Parallel()
	kafka := testkit.Broker(t)
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
			var settings strings.Builder
			for _, line := range lines {
				if setting, ok := strings.CutPrefix(line, "% "); ok {
					settings.WriteString(setting + "\n")
				}
			}
			p := startPool(t, testConfig(t, kafka.Brokers, name, settings.String()))
			d := &dialogue{pool: p, words: make(map[string]string), jobs: make(map[string]work)}
			d.dial()
			defer func() { d.conn.Close() }()
			for i, line := range lines {
				more := i+1 < len(lines) && strings.HasPrefix(lines[i+1], "> ")
				if err := d.play(line, more); err != nil {
					t.Fatalf("%s:%d: %s\n%v", file, i+1, line, err)
				}
			}
			if err := d.silence(); err != nil {
				t.Fatalf("%s: at the end: %v", file, err)
			}
		})
	}
}

// dialogue is a miner that does what a file says.
type dialogue struct {
	pool   *pool
	conn   net.Conn
	lines  *bufio.Reader
	packet string            // to be sent
	words  map[string]string // what $words stand for

	extraNonce1 string
	difficulty  float64
	jobs        map[string]work // by id
	longest     int             // line, in bytes without its end
}

func (d *dialogue) dial() {
	conn, err := net.Dial("tcp", d.pool.Addr().String())
	if err != nil {
		d.pool.t.Fatal(err)
	}
	d.conn, d.lines = conn, bufio.NewReader(conn)
}

// play does what one line of the file says; more of the same packet may follow.
func (d *dialogue) play(line string, more bool) error {
	kind, text, _ := strings.Cut(line, " ")
	text = d.fill(text)
	if unknown := word.FindString(text); unknown != "" && kind != "<" && kind != "#" {
		return fmt.Errorf("%s stands for nothing", unknown)
	}
	switch kind {
	case "", "#", "%":
		return nil
	case ">":
		for written, end := range map[string]string{`\r`: "\r", `\0`: "\x00"} {
			if cut, ok := strings.CutSuffix(text, written); ok {
				text = cut + end
			}
		}
		d.packet += text + "\n"
		if more {
			return nil
		}
		return d.send()
	case ">>":
		d.packet += text
		return d.send()
	case "<":
		return d.expect(text)
	case "!":
		return d.happen(strings.Fields(text))
	}
	return errors.New("no line of a dialogue")
}

func (d *dialogue) send() error {
	d.say(">", d.packet)
	_, err := d.conn.Write([]byte(d.packet))
	d.packet = ""
	return err
}

func (d *dialogue) say(who, text string) {
	if testing.Verbose() {
		d.pool.t.Log(who, text)
	}
}

var word = regexp.MustCompile(`\$(\w+)`)

// fill puts in what $words stand for.
func (d *dialogue) fill(text string) string {
	return word.ReplaceAllStringFunc(text, func(w string) string {
		if v, known := d.words[w[1:]]; known {
			return v
		}
		return w
	})
}

// expect reads the next line, which must be as pattern says, and learns the words in it, which are new.
func (d *dialogue) expect(pattern string) error {
	got, err := d.read()
	if err != nil {
		return err
	}
	var expr strings.Builder
	var names []string
	end := 0
	for _, at := range word.FindAllStringIndex(pattern, -1) {
		expr.WriteString(regexp.QuoteMeta(pattern[end:at[0]]))
		name := pattern[at[0]+1 : at[1]]
		if name == "_" {
			expr.WriteString(`(.*?)`)
		} else {
			expr.WriteString(`([^"]*?)`)
		}
		names = append(names, name)
		end = at[1]
	}
	expr.WriteString(regexp.QuoteMeta(pattern[end:]))
	match := regexp.MustCompile("^" + expr.String() + "$").FindStringSubmatch(got)
	if match == nil {
		return fmt.Errorf("got  %s\nwant %s", got, pattern)
	}
	for i, name := range names {
		if before, known := d.words[name]; known && before != match[i+1] {
			return fmt.Errorf("got  %s\n$%s is %s and %s", got, name, before, match[i+1])
		}
		if name != "_" {
			d.words[name] = match[i+1]
		}
	}
	return nil
}

// read returns the next line, and notes of it what firmware does.
func (d *dialogue) read() (string, error) {
	if err := d.conn.SetReadDeadline(time.Now().Add(testkit.Patience)); err != nil {
		return "", err
	}
	line, err := d.lines.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%q and then: %w", line, err)
	}
	d.say("<", line)
	line = strings.TrimSuffix(line, "\n")
	d.longest = max(d.longest, len(line))
	var m struct {
		Method         string
		Params, Result json.RawMessage
	}
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		return "", fmt.Errorf("%s: %w", line, err)
	}
	switch m.Method {
	case "mining.set_difficulty":
		var params [1]float64
		err = json.Unmarshal(m.Params, &params)
		d.difficulty = params[0]
	case "mining.notify":
		w := work{extraNonce1: d.extraNonce1, difficulty: d.difficulty}
		err = w.parse(m.Params)
		d.jobs[w.id] = w
	case "":
		var subscribed []json.RawMessage
		if json.Unmarshal(m.Result, &subscribed) == nil && len(subscribed) == 3 {
			err = json.Unmarshal(subscribed[1], &d.extraNonce1)
		}
	}
	return line, err
}

// silence asks twice for a sign of life: behind the first the pool may say what has happened since.
func (d *dialogue) silence() error {
	for range 2 {
		d.packet = `{"id":"alive","method":"mining.ping","params":[]}` + "\n"
		if err := d.send(); err != nil {
			return err
		}
		if err := d.expect(`{"id":"alive","result":"pong","error":null}`); err != nil {
			return err
		}
	}
	return nil
}
