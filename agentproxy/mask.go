package agentproxy

import (
	"slices"

	"btcpool/internal/stratum"
)

// defaultVersionBits are those that BIP 320 leaves to miners.
const defaultVersionBits = 0x1fffe000

// learnMask notes which version bits a pool takes, and has all miners hear of it that have to.
func (s *Service) learnMask(pool string, mask uint32) {
	if before, known := s.masks[pool]; known && before == mask {
		return
	}
	if s.masks == nil {
		s.masks = make(map[string]uint32)
	}
	s.masks[pool] = mask
	for _, m := range slices.Clone(s.miners) {
		m.tellVersionBits()
		m.settle()
	}
}

// tellVersionBits tells the miner what it may roll, if that is new and it rolls at all.
func (m *miner) tellVersionBits() {
	if bits := m.wantedBits & m.allowedBits(); m.rolls && bits != m.toldBits {
		m.toldBits = bits
		m.send(stratum.AppendSetVersionMask(nil, bits))
	}
}

// allowedBits are those that the miner's link takes, and every pool that it may have to go on at, as far as they are
// known: a miner may not heed mining.set_version_mask. A pool that lets nobody roll is for its time only: miners that gave
// up ASICBoost for a pool that may never be needed would pay for it with every hash.
func (m *miner) allowedBits() uint32 {
	s := m.svc
	var bits uint32 = defaultVersionBits
	for _, p := range s.cfg.Pools {
		if mask := s.masks[p.Addr] & defaultVersionBits; mask != 0 {
			bits &= mask
		}
	}
	l := m.link
	if l == nil && m.acct == nil {
		l = s.likelyLink()
	}
	if l != nil {
		bits &= l.versionBits
	}
	return bits
}

// likelyLink returns a link like the one that a miner gets that logs in, if there is any.
func (s *Service) likelyLink() *link {
	var likely *link
	for _, a := range s.accounts {
		if l := a.best(nil); l != nil && (likely == nil || l.rank() < likely.rank()) {
			likely = l
		}
	}
	return likely
}
