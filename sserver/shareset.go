package sserver

import "sync"

// shareKey is what makes a share of one job different from others.
type shareKey struct {
	extraNonce2 [3]uint32 // big-endian, with the prefix of a grand pool's client
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
		// recording is on while another process has the other keys; fresh are those since.
		recording bool
		fresh     []shareKey
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
	if p.recording {
		p.fresh = append(p.fresh, k)
	}
}

// record returns all shares, and has recorded return those that come from now on.
func (s *shareSet) record() (keys []shareKey) {
	for i := range s.parts {
		p := &s.parts[i]
		p.Lock()
		p.recording, p.fresh = true, nil
		for k := range p.keys {
			keys = append(keys, k)
		}
		p.Unlock()
	}
	return keys
}

// recorded returns the shares since record was called, or all if it was not.
func (s *shareSet) recorded() (keys []shareKey) {
	for i := range s.parts {
		p := &s.parts[i]
		p.Lock()
		if p.recording {
			keys = append(keys, p.fresh...)
		} else {
			for k := range p.keys {
				keys = append(keys, k)
			}
		}
		p.recording, p.fresh = false, nil
		p.Unlock()
	}
	return keys
}
