package agentproxy

import (
	"slices"
	"strings"
	"time"

	"btcpool/internal/agentwire"
	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	v1 "btcpool/internal/stratum/v1"
)

// downstream is the miner as the conversation's v1.Session.
type downstream miner

func (d *downstream) Subscribe(software string, _ uint32, _ bool) (v1.Subscription, share.Status) {
	m := (*miner)(d)
	if m.subscribed {
		return v1.Subscription{}, share.StatusUnknown
	}
	number, ok := m.svc.numbers.take()
	if !ok {
		m.finish(errNoNumber)
		return v1.Subscription{}, share.StatusInternalError
	}
	m.number, m.subscribed = number, true
	m.software = strings.Clone(software)
	return v1.Subscription{
		ExtraNonce1: agentwire.Session(number).ExtraNonce1(), ExtraNonce2Size: agentwire.MinerExtraNonce2Size,
	}, share.StatusAccept
}

func (d *downstream) Name(software string) {
	if d.software == "" {
		d.software = strings.Clone(software)
	}
}

func (d *downstream) LogIn(name string, _ v1.Wishes) (status share.Status, done bool) {
	m := (*miner)(d)
	switch account, worker := m.svc.cfg.Workers.name(name, m.ip); {
	case m.loggedIn: // it stays who it is
		return share.StatusAccept, true
	case !m.subscribed:
		return share.StatusNotSubscribed, true
	case account == "" && m.svc.cfg.MultiUser:
		return share.StatusInvalidUsername, true
	case m.svc.cfg.MultiUser && m.svc.accounts[account] == nil && len(m.svc.accounts) >= maxAccounts:
		m.svc.metrics.refused.WithLabelValues("accounts").Inc()
		return share.StatusUnauthorized, true
	default:
		m.accountName, m.worker, m.loggedIn = account, worker, true
		return share.StatusAccept, true
	}
}

func (d *downstream) LoggedIn() bool      { return d.loggedIn }
func (d *downstream) VersionBits() uint32 { return (*miner)(d).allowedBits() }

func (d *downstream) RollVersion(mask, wished uint32) {
	d.rolls, d.wantedBits, d.toldBits = true, wished, mask
}

// What a miner wishes for is between it and the pool: an agent cannot pass it on.

func (d *downstream) WishDifficulty(bitcoin.Difficulty)  {}
func (d *downstream) LimitDifficulty(bitcoin.Difficulty) {}

func (d *downstream) Submit(sub v1.Submission) (status share.Status, done bool) {
	return (*miner)(d).submit(sub)
}

func (d *downstream) SessionKey() uint64                                  { return 0 }
func (d *downstream) EndSession(uint32, uint64) bool                      { return false }
func (d *downstream) SpeaksForFarm() bool                                 { return false }
func (d *downstream) Register(uint16, string, string)                     {}
func (d *downstream) Unregister(uint16)                                   {}
func (d *downstream) CutFrame()                                           {}
func (d *downstream) IgnoreFrame(string)                                  {}
func (d *downstream) SubmitOf(uint16, v1.Submission) (share.Status, bool) { return 0, false }

func (d *downstream) BadInput() { d.svc.metrics.badInput.Inc() }

func (d *downstream) Gibberish() (tooMuch bool) {
	d.junk++
	return d.junk >= maxJunk
}

// submit sends a share on, or says why not.
func (m *miner) submit(sub v1.Submission) (status share.Status, done bool) {
	s := m.svc
	m.junk = 0
	j, known := m.jobOf(sub.Job)
	switch {
	case sub.NoJob || !known:
		return m.refuse(share.StatusJobNotFound, "unknown job")
	case j.work.link == nil:
		return m.refuse(share.StatusStale, "no link")
	}
	told := m.toldOf(j)
	q := question{
		miner:  m,
		hashes: told.difficulty * (1 << 32),
		at:     s.now,
		work:   j.work,
		solution: solution{
			extraNonce2: uint32(sub.ExtraNonce2 >> 32),
			time:        sub.Time,
			nonce:       sub.Nonce,
			versionBits: sub.VersionBits,
			rolled:      sub.Rolled,
		},
	}
	var f finding
	check := s.cfg.CheckShares || told.difficulty < told.pool
	if check {
		if f = s.checker.check(j, told, m.number, &q.solution); f.block {
			q.block = true
			s.metrics.blocks.Inc()
			s.log.Info().Stringer("hash", f.hash).Str("worker", m.worker).Stringer("ip", m.ip).Msg("a share is a block")
		}
	}
	to := j.work.link.current()
	if !f.block {
		switch {
		case sub.VersionBits&^to.versionBits != 0:
			m.watchVersionBits(to)
			return m.refuse(share.StatusIllegalVersionMask, "version bits")
		case check && f.status != share.StatusAccept:
			s.metrics.checked.WithLabelValues(f.status.Label()).Inc()
			m.count(f.status, 0)
			return f.status, true
		}
	}
	m.misrolled = 0
	m.watchASICBoost(sub.VersionBits != 0)
	if f.status == share.StatusAccept {
		m.adjust(told.difficulty)
	}
	if f.easy && !f.block {
		s.metrics.checked.WithLabelValues(share.StatusAccept.Label()).Inc()
		m.countEasy(q.hashes)
		return share.StatusAccept, true
	}
	return m.deliver(to, q, sub.ID)
}

// refuse says of a share that it is not sent.
func (m *miner) refuse(status share.Status, reason string) (share.Status, bool) {
	m.svc.metrics.lost.WithLabelValues(reason).Inc()
	m.svc.metrics.answers.WithLabelValues(status.Label()).Inc()
	m.count(status, 0)
	return status, true
}

// deliver sends a share to the pool whose job it is for, or keeps it until that can be done. id is that of the request.
func (m *miner) deliver(to *link, q question, id []byte) (status share.Status, done bool) {
	if !to.over {
		to.host(m)
	}
	if to.over {
		q.id = slices.Clone(id) // nothing is good before it is sent
		if to.hold(q) {
			return 0, false
		}
		return m.refuse(share.StatusStale, "link lost")
	}
	if to != m.link || to != q.work.link {
		m.svc.metrics.late.Inc()
	}
	if to.target.verdicts {
		q.id = slices.Clone(id)
	}
	switch awaited := to.submit(q); {
	case !awaited:
		m.count(share.StatusAccept, q.hashes)
	case q.id != nil:
		return 0, false
	}
	m.svc.metrics.answers.WithLabelValues(share.StatusAccept.Label()).Inc()
	return share.StatusAccept, true
}

// maxAccounts bounds what names that somebody makes up cost the pool: each has links of its own.
const maxAccounts = 1000

const (
	// rolledBefore is how many shares with version bits a miner has sent before one without shows that it has stopped.
	rolledBefore = 100
	// maxMisrolled is how many shares in a row with bits that it may not roll show that a miner does not heed its mask.
	maxMisrolled = 5
	// reconnectPause is how often a miner is asked to connect again.
	reconnectPause = 10 * time.Minute
)

// watchASICBoost asks a miner to connect again that has stopped rolling version bits. One that connects again counts
// from the beginning, so hardware that never rolls is left alone.
func (m *miner) watchASICBoost(rolled bool) {
	switch {
	case rolled:
		m.rolled++
	case m.rolled > rolledBefore && m.svc.cfg.ReconnectLostASICBoost:
		m.askToReconnect()
	}
}

// watchVersionBits asks a miner to connect again that has been told of fewer version bits, and does not heed that: when
// it connects it hears of them in the answer to mining.configure.
func (m *miner) watchVersionBits(used *link) {
	if used != m.link || !m.rolls {
		return
	}
	if m.misrolled++; m.misrolled >= maxMisrolled {
		m.askToReconnect()
	}
}

func (m *miner) askToReconnect() {
	s := m.svc
	if s.now.Sub(m.reconnected) <= reconnectPause {
		return
	}
	m.reconnected = s.now
	s.metrics.reconnect.Inc()
	m.send(m.conversation().AppendReconnect(nil, "", 0))
}
