package sserver

import (
	"fmt"
	"sync"
	"time"
)

// release lets the loops send the answers that waited for the disk. It is called by the spool of shares.
func (s *Service) release(durable uint64, failure error) {
	s.onLoops(func(l *loop) { l.release(durable, failure) })
}

// collect returns when all loops have read what has arrived. It is called by the spool of shares, before it writes.
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
	seq     uint64 // number of the last share in the spool
	size    int    // bytes of heldText
	since   time.Time
}

// hold keeps the answer in l.sc for s until record l.sc.seq, or the last that s waits for already, is on disk.
func (l *loop) hold(s *session) {
	if l.sc.seq > 0 {
		s.heldSeq = l.sc.seq
	}
	s.held++
	s.heldBytes += len(l.sc.out)
	l.heldText = append(l.heldText, l.sc.out...)
	l.held = append(l.held, heldAnswer{s, s.heldSeq, len(l.sc.out), l.now})
}

// release sends the answers that waited for records up to durable. When the disk has failed, those who wait for more
// are disconnected: no answer is better than a false one.
func (l *loop) release(durable uint64, failure error) {
	n, end := 0, 0
	now := time.Now()
	for ; n < len(l.held) && (l.held[n].seq <= durable || failure != nil); n++ {
		h := &l.held[n]
		start := end
		end += h.size
		h.session.held--
		h.session.heldBytes -= h.size
		if h.seq <= durable {
			l.srv.metrics.shareSeconds.Observe(now.Sub(h.since).Seconds())
			l.deliver(h.session, l.heldText[start:end])
		} else {
			l.refuse(h.session, failure)
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
