//go:build integration

package load

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"btcpool/internal/bitcoin"
)

// What miners say, and what they make of what they hear.

// Ids of requests; shares have those of their nonces, which start above.
const (
	subscribeID = 1
	authorizeID = 2
	firstNonce  = 16
)

var (
	notifyMark     = []byte(`"method":"mining.notify","params":["`)
	difficultyMark = []byte(`"method":"mining.set_difficulty","params":[`)
	methodMark     = []byte(`"method":`)
	resultMark     = []byte(`"result":true`)
	errorMark      = []byte(`"error":[`)
)

var errLine = errors.New("line not understood")

func (m *miners) line(i int, line []byte, now int64) error {
	if bytes.Contains(line, methodMark) {
		if _, params, ok := bytes.Cut(line, notifyMark); ok {
			return m.notify(i, line, params, now)
		}
		if _, params, ok := bytes.Cut(line, difficultyMark); ok {
			d, err := strconv.ParseFloat(string(bytes.TrimRight(params, "]}")), 64)
			if err != nil {
				return err
			}
			m.conns[i].announced = bitcoin.DifficultyAtLeast(d)
		}
		return nil
	}
	_, text, _ := bytes.Cut(line, []byte(`"id":`))
	number, _, _ := bytes.Cut(text, []byte{','})
	id, err := strconv.ParseUint(string(number), 10, 32)
	if err != nil {
		return errLine
	}
	if id < firstNonce {
		return m.loggingIn(i, line, uint32(id), now)
	}
	return m.verdict(i, line, uint32(id), now)
}

func (m *miners) loggingIn(i int, line []byte, id uint32, now int64) error {
	c := &m.conns[i]
	if id == subscribeID {
		fields := bytes.Split(line, []byte{'"'}) // the extranonce1 is the last text before "error"
		if len(fields) < 5 {
			return errLine
		}
		if _, err := hex.Decode(c.extranonce1[:], fields[len(fields)-4]); err != nil {
			return errLine
		}
		size, err := strconv.Atoi(string(bytes.Trim(fields[len(fields)-3], ",]")))
		if err != nil {
			return errLine
		}
		c.nonceBytes = size
		c.known = true
		c.phase = authorizing
		m.send(i, fmt.Appendf(nil, `{"id":%d,"method":"mining.authorize","params":["miner.r%05d","x"]}`+"\n", authorizeID, i))
		return nil
	}
	if !bytes.Contains(line, resultMark) {
		return errors.New("login refused")
	}
	m.dialing--
	c.phase = authorized
	m.Authorized++
	m.LastAuthorized = now
	if m.login.Kind == "bare" { // it gives no jobs
		c.work, c.jobID = &work{time: []byte("00000000")}, []byte("0")
	}
	return nil
}

func (m *miners) notify(i int, line, params []byte, now int64) error {
	c := &m.conns[i]
	id, text, ok := bytes.Cut(params, []byte{'"'})
	end := bytes.LastIndexByte(text, ',') // the flag "clean" is behind it
	if !ok || end < 0 {
		return errLine
	}
	if text = text[:end]; m.last == nil || !bytes.Equal(m.last.text, text) {
		w, err := parseWork(line)
		if err != nil {
			return err
		}
		w.text = bytes.Clone(text)
		m.last = w
		m.lastLine = append(bytes.Clone(line), '\n')
	}
	first := c.work == nil
	c.work, c.fresh = m.last, false
	if c.difficulty != c.announced {
		c.difficulty = c.announced
		m.DifficultyChanges++
		if m.hashing {
			c.schedule(now)
		}
	}
	c.jobID = append(c.jobID[:0], id...)
	if m.watchedFrom > 0 {
		m.arrivals.add(now - m.watchedFrom)
		if m.Arrived++; m.Arrived == 1 {
			m.First = now
		}
	}
	if !c.withJob {
		c.withJob = true
		m.WithJob++
	}
	if first && m.closedLoop {
		m.submit(i, now)
	}
	return nil
}

func (m *miners) verdict(i int, line []byte, nonce uint32, now int64) error {
	c := &m.conns[i]
	k := 0
	for k < len(c.sent) && c.sent[k].nonce != nonce {
		k++
	}
	if k == len(c.sent) {
		return errors.New("answer to nothing")
	}
	share := c.sent[k]
	c.sent = append(c.sent[:k], c.sent[k+1:]...)
	m.answers.add(now - share.at)
	_, fault, refused := bytes.Cut(line, errorMark)
	switch {
	case bytes.Contains(line, resultMark):
		m.Accepted++
		for int(nonce/64) >= len(m.accepted) {
			m.accepted = append(m.accepted, make([]uint64, 1+len(m.accepted))...)
		}
		m.accepted[nonce/64] |= 1 << (nonce % 64)
		if c.stale == share.work {
			m.Refused["stale, though the next share of the same job was not"]++
		}
	case !refused:
		return errLine
	case bytes.HasPrefix(fault, []byte("23,")):
		m.Unlucky++
	case bytes.HasPrefix(fault, []byte("21,")):
		m.Stale++
		c.stale = share.work
	default:
		m.Refused[string(fault)]++
	}
	if m.closedLoop {
		m.submit(i, now)
	}
	return nil
}

// submit sends a share if the miner has a job.
func (m *miners) submit(i int, now int64) bool {
	c := &m.conns[i]
	if c.phase != authorized || c.work == nil {
		return false
	}
	nonce := m.find(c)
	b := make([]byte, 0, 160)
	b = append(b, `{"id":`...)
	b = strconv.AppendUint(b, uint64(nonce), 10)
	b = append(b, `,"method":"mining.submit","params":["miner.r`...)
	b = append(b, "00000"[:5-min(len(strconv.Itoa(i)), 5)]...)
	b = strconv.AppendInt(b, int64(i), 10)
	b = append(append(append(b, `","`...), c.jobID...), `","`...)
	b = append(append(b, "0000000000000000"[:2*c.nonceBytes]...), `","`...)
	b = append(append(b, c.work.time...), `","`...)
	b = hex.AppendEncode(b, binary.BigEndian.AppendUint32(nil, nonce))
	b = append(b, "\"]}\n"...)
	c.sent = append(c.sent, submitted{nonce, c.work, now})
	m.Submitted++
	m.send(i, b)
	return true
}
