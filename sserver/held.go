package sserver

import (
	"fmt"
	"sync"
	"time"
)

// release lets the loops send the answers that waited for the disk. It is called by the spool of a chain's shares.
func (s *Service) release(chain uint8, durable uint64, failure error) {
	s.onLoops(func(l *loop) { l.release(chain, durable, failure) })
}

// collect returns when all loops have read what has arrived. It is called by a chain's spool of shares, before it writes.
func (s *Service) collect() {
	var loops sync.WaitGroup
	s.collecting.Lock()
	for _, l := range s.loops {
		loops.Add(1)
		if s.still || !l.Post(loops.Done) {
			loops.Done()
		}
	}
	s.collecting.Unlock()
	loops.Wait()
}

// keepStill has collect not wait for loops that are about to read nothing any more, and to wait themselves.
func (s *Service) keepStill(still bool) {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	s.still = still
}

// heldAnswer is what a session is told when the shares among its requests are on disk.
type heldAnswer struct {
	session *session
	seq     uint64 // number of the last share in its chain's spool
	size    int32  // bytes of heldText
	chain   uint8
	failed  bool // the share is not on disk, and will not be
	since   time.Time
}

// await has the answers in l.sc wait for record seq of a chain's spool. Shares of another chain among them are waited for
// first, with nothing to say.
func (l *loop) await(s *session, chain uint8, seq uint64) {
	if l.sc.seq > 0 && l.sc.chain != chain {
		l.line(s, l.sc.chain, l.sc.seq, nil)
	}
	l.sc.chain, l.sc.seq = chain, seq
}

// hold keeps the answer in l.sc for s until the record that it awaits, or the last that s waits for already, is on disk.
func (l *loop) hold(s *session) {
	if l.sc.seq > 0 {
		s.heldSeq, s.heldChain = l.sc.seq, l.sc.chain
	}
	l.line(s, s.heldChain, s.heldSeq, l.sc.out)
}

func (l *loop) line(s *session, chain uint8, seq uint64, text []byte) {
	s.held++
	s.heldBytes += len(text)
	l.heldText = append(l.heldText, text...)
	l.held = append(l.held, heldAnswer{session: s, seq: seq, size: int32(len(text)), chain: chain, since: l.now})
}

// release sends the answers that waited for records of a chain up to durable, and for no others. When the disk has
// failed, those who wait for more are disconnected: no answer is better than a false one.
func (l *loop) release(chain uint8, durable uint64, failure error) {
	l.durable[chain] = max(l.durable[chain], durable)
	if failure != nil {
		l.failure = failure
		for i := range l.held {
			h := &l.held[i]
			h.failed = h.failed || h.chain == chain && h.seq > durable
		}
	}
	n, end := 0, 0
	now := time.Now()
	for ; n < len(l.held) && (l.held[n].failed || l.held[n].seq <= l.durable[l.held[n].chain]); n++ {
		h := &l.held[n]
		start := end
		end += int(h.size)
		h.session.held--
		h.session.heldBytes -= int(h.size)
		if !h.failed {
			l.srv.metrics.shareSeconds.Observe(now.Sub(h.since).Seconds())
			l.deliver(h.session, l.heldText[start:end])
		} else {
			l.refuse(h.session, l.failure)
		}
	}
	rest := copy(l.held, l.held[n:])
	clear(l.held[rest:])
	l.held = l.held[:rest]
	l.heldText = l.heldText[:copy(l.heldText, l.heldText[end:])]
}

func (l *loop) deliver(s *session, answer []byte) {
	if s.over {
		return
	}
	defer l.settle(s)
	l.sc.out = append(l.sc.out[:0], answer...)
	s.answer()
}

func (l *loop) refuse(s *session, failure error) {
	if s.over {
		return
	}
	s.fail(fmt.Errorf("%w: %w", errSpool, failure))
	l.settle(s)
}
