package sserver

import "sync"

// shareKey is what makes a share of one job different from others.
type shareKey struct {
	extraNonce2 uint64
	extraNonce1 uint32
	time        uint32
	nonce       uint32
	versionBits uint32
}

// shareSet holds the shares of one job that were accepted: each of them cost its miner work, so nobody can fill it for
// nothing. It is forgotten with its job. The zero value is ready.
type shareSet struct {
	parts [16]struct {
		sync.Mutex
		keys map[shareKey]struct{}
	}
}

func (s *shareSet) part(k shareKey) int {
	return int((k.nonce ^ k.extraNonce1*2654435761) * 2654435761 >> 28)
}

func (s *shareSet) has(k shareKey) bool {
	p := &s.parts[s.part(k)]
	p.Lock()
	defer p.Unlock()
	_, ok := p.keys[k]
	return ok
}

func (s *shareSet) add(k shareKey) {
	p := &s.parts[s.part(k)]
	p.Lock()
	defer p.Unlock()
	if p.keys == nil {
		p.keys = make(map[shareKey]struct{})
	}
	p.keys[k] = struct{}{}
}
