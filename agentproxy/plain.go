package agentproxy

import (
	"btcpool/internal/agentwire"
	"btcpool/internal/stratum"
)

// What is said differently to a pool that speaks plain Stratum V1 only.

// workerName is what such a pool knows a worker by.
func (l *link) workerName(worker string) string { return l.accountName() + "." + worker }

// shareName is whose shares are to be for such a pool. One that has not let any worker in knows none but the account:
// ckpool does not answer, and refuses all shares of another name than the connection's first.
func (l *link) shareName(worker string) string {
	if l.named {
		return l.workerName(worker)
	}
	return l.accountName()
}

// authorizeWorker logs a worker in, once.
func (l *link) authorizeWorker(worker string) {
	if _, known := l.workers[worker]; known {
		return
	}
	if l.workers == nil {
		l.workers = make(map[string]struct{})
	}
	l.workers[worker] = struct{}{}
	l.ask(idWorker, "mining.authorize", quote(l.workerName(worker))+`,""`)
}

// submitText sends a share as request number id.
func (l *link) submitText(id uint32, q question) {
	l.send(stratum.AppendSubmit(nil, uint64(id), stratum.Submit{
		Worker:      stratum.Escape(l.shareName(q.miner.worker)),
		JobID:       q.work.id,
		ExtraNonce2: agentwire.Session(q.miner.number).ExtraNonce2(q.extraNonce2),
		Time:        q.time,
		Nonce:       q.nonce,
		VersionBits: q.versionBits,
		Rolled:      q.rolled,
	}, l.nonceBytes))
}
