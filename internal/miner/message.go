package miner

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/tidwall/gjson"
)

// Limits on what a pool may send; everything beyond ends the connection.
const (
	maxLine        = 64 << 10 // bytes, line feed included
	maxJobID       = 256      // bytes
	maxExtranonce1 = 64       // bytes
	maxExtranonce2 = 32       // bytes
	maxBranch      = 32       // hashes
	maxID          = 64       // bytes of a request's id
	maxText        = 200      // bytes kept of a text meant for people
)

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

// message is one line of a pool: a request or notification when it has a method, else an answer.
type message struct {
	id     gjson.Result
	method string
	params []gjson.Result
	result gjson.Result
	err    gjson.Result
}

// parseMessage reads one line; it copies what it keeps.
func parseMessage(line []byte) (message, error) {
	var m message
	if !gjson.ValidBytes(line) {
		return m, errors.New("not JSON")
	}
	root := gjson.ParseBytes(line)
	if !root.IsObject() {
		return m, errors.New("not a JSON object")
	}
	var bad error
	root.ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "id":
			m.id = value
		case "method":
			if value.Type != gjson.String && value.Type != gjson.Null {
				bad = errors.New("method is not a string")
			}
			m.method = value.Str
		case "params":
			if value.IsArray() {
				m.params = value.Array()
			}
		case "result":
			m.result = value
		case "error":
			m.err = value
		}
		return bad == nil
	})
	return m, bad
}

// answerID returns the number of the request an answer belongs to. Some pools send it back as a string.
func (m *message) answerID() (uint64, bool) {
	if m.id.Type != gjson.Number && m.id.Type != gjson.String {
		return 0, false
	}
	id, err := strconv.ParseUint(m.id.String(), 10, 64)
	return id, err == nil
}

// refusal returns the code and text of the answer's error. Stratum says [code, text, traceback]; some pools send an object.
func (m *message) refusal() (code int, text string, refused bool) {
	switch {
	case m.err.IsArray():
		parts := m.err.Array()
		if len(parts) > 0 {
			code = int(parts[0].Int())
		}
		if len(parts) > 1 {
			text = parts[1].String()
		}
	case m.err.IsObject():
		code = int(m.err.Get("code").Int())
		text = m.err.Get("message").String()
	case m.err.Exists() && m.err.Type != gjson.Null && m.err.Type != gjson.False:
		text = m.err.String()
	case m.result.Type == gjson.True:
		return 0, "", false
	default:
		text = "result is not true"
	}
	return code, cut(text), true
}

func cut(text string) string {
	return text[:min(len(text), maxText)]
}

// parseNotify reads the parameters of mining.notify.
func parseNotify(params []gjson.Result) (*Notify, error) {
	if len(params) < 9 {
		return nil, fmt.Errorf("%d parameters, want 9", len(params))
	}
	n := &Notify{JobID: params[0].Str}
	if params[0].Type != gjson.String || len(n.JobID) > maxJobID {
		return nil, fmt.Errorf("job id is not a string of at most %d bytes", maxJobID)
	}
	var err error
	if n.PrevHash, err = parseHash(params[1]); err != nil {
		return nil, fmt.Errorf("previous hash: %w", err)
	}
	// On the wire every 4-byte word of the previous hash is reversed.
	for i := 0; i < len(n.PrevHash); i += 4 {
		word := n.PrevHash[i : i+4]
		binary.LittleEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	if n.Coinbase1, err = parseHex(params[2]); err != nil {
		return nil, fmt.Errorf("coinbase 1: %w", err)
	}
	if n.Coinbase2, err = parseHex(params[3]); err != nil {
		return nil, fmt.Errorf("coinbase 2: %w", err)
	}
	if !params[4].IsArray() {
		return nil, errors.New("merkle branch is not an array")
	}
	branch := params[4].Array()
	if len(branch) > maxBranch {
		return nil, fmt.Errorf("merkle branch of %d hashes, at most %d", len(branch), maxBranch)
	}
	n.Branch = make([]chainhash.Hash, len(branch))
	for i, h := range branch {
		if n.Branch[i], err = parseHash(h); err != nil {
			return nil, fmt.Errorf("merkle branch: %w", err)
		}
	}
	for _, word := range []struct {
		name string
		in   gjson.Result
		out  *uint32
	}{{"version", params[5], &n.Version}, {"bits", params[6], &n.Bits}, {"time", params[7], &n.Time}} {
		if *word.out, err = parseWord(word.in); err != nil {
			return nil, fmt.Errorf("%s: %w", word.name, err)
		}
	}
	if !params[8].IsBool() {
		return nil, errors.New("clean flag is not a boolean")
	}
	n.Clean = params[8].Bool()
	return n, nil
}

// parseDifficulty reads the parameters of mining.set_difficulty.
func parseDifficulty(params []gjson.Result) (float64, error) {
	if len(params) < 1 || params[0].Type != gjson.Number {
		return 0, errors.New("difficulty is not a number")
	}
	d := params[0].Num
	if !(d > 0) || math.IsInf(d, 1) {
		return 0, fmt.Errorf("difficulty %s is not above zero", cut(params[0].Raw))
	}
	return d, nil
}

// parseExtranonce reads extranonce1 and the size of extranonce2: the parameters of mining.set_extranonce and the last two
// elements of the answer to mining.subscribe.
func parseExtranonce(params []gjson.Result) (extranonce1 []byte, size int, err error) {
	if len(params) < 2 {
		return nil, 0, errors.New("extranonce1 or the size of extranonce2 is missing")
	}
	if extranonce1, err = parseHex(params[0]); err != nil {
		return nil, 0, fmt.Errorf("extranonce1: %w", err)
	}
	if len(extranonce1) > maxExtranonce1 {
		return nil, 0, fmt.Errorf("extranonce1 of %d bytes, at most %d", len(extranonce1), maxExtranonce1)
	}
	n := params[1].Num
	if params[1].Type != gjson.Number || n != math.Trunc(n) || n < 1 || n > maxExtranonce2 {
		return nil, 0, fmt.Errorf("extranonce2 size %s is not a whole number from 1 to %d", cut(params[1].Raw), maxExtranonce2)
	}
	return extranonce1, int(n), nil
}

// parseSubscription reads the result of mining.subscribe: [subscriptions, extranonce1, size of extranonce2].
func parseSubscription(result gjson.Result) (extranonce1 []byte, size int, err error) {
	parts := result.Array()
	if !result.IsArray() || len(parts) < 3 {
		return nil, 0, errors.New("result is not [subscriptions, extranonce1, extranonce2 size]")
	}
	return parseExtranonce(parts[1:])
}

// parseMask reads the parameters of mining.set_version_mask.
func parseMask(params []gjson.Result) (uint32, error) {
	if len(params) < 1 {
		return 0, errors.New("no version mask")
	}
	return parseWord(params[0])
}

// parseRedirect reads the parameters of client.reconnect: none, or host, port and seconds to wait, all of them optional.
// An empty host or a zero port mean the present one.
func parseRedirect(params []gjson.Result) (host string, port uint16, waitSeconds float64, err error) {
	if len(params) > 0 && params[0].Type == gjson.String {
		host = params[0].Str
	}
	if len(params) > 1 {
		p, err := strconv.ParseUint(params[1].String(), 10, 16)
		if err != nil {
			return "", 0, 0, fmt.Errorf("port %s is not a number up to 65535", cut(params[1].Raw))
		}
		port = uint16(p)
	}
	if len(params) > 2 && params[2].Type == gjson.Number {
		waitSeconds = max(0, params[2].Num)
	}
	return host, port, waitSeconds, nil
}

func parseHex(v gjson.Result) ([]byte, error) {
	if v.Type != gjson.String {
		return nil, errors.New("not a string")
	}
	return hex.DecodeString(v.Str)
}

func parseHash(v gjson.Result) (h chainhash.Hash, err error) {
	if v.Type != gjson.String || len(v.Str) != 2*len(h) {
		return h, fmt.Errorf("not a string of %d hex digits", 2*len(h))
	}
	_, err = hex.Decode(h[:], []byte(v.Str))
	return h, err
}

// parseWord reads eight hex digits.
func parseWord(v gjson.Result) (uint32, error) {
	if v.Type != gjson.String || len(v.Str) != 8 {
		return 0, errors.New("not a string of 8 hex digits")
	}
	var b [4]byte
	_, err := hex.Decode(b[:], []byte(v.Str))
	return binary.BigEndian.Uint32(b[:]), err
}
