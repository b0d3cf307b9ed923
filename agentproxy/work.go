package agentproxy

import (
	"time"

	"btcpool/internal/agentwire"
	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/stratum"
	v1 "btcpool/internal/stratum/v1"
)

// work is a job of a pool, as the miners of one link hear it.
type work struct {
	link   *link // nil: it is a stand-in
	whole  *job.StratumJob
	target bitcoin.Target // the network's
	job    v1.Job
	id     []byte // as the pool calls it
	number uint8  // id, in frames
	time   uint32
	since  time.Time // when it came
}

func newWork(l *link, whole *job.StratumJob, now time.Time) *work {
	w := &work{link: l, whole: whole, since: now}
	w.derive()
	return w
}

// derive sets what follows from the whole job.
func (w *work) derive() {
	w.target, _ = bitcoin.TargetFromBits(w.whole.Bits) // zero, which nothing meets, if it is none
	w.job = v1.NewWholeJob(w.whole, agentwire.MinerExtraNonce2Size)
	w.time = w.whole.Time
}

// minersJob is what j is for miners of a link with that extranonce1, whose extranonce2 has size bytes. Miners have the end
// of it, as agentwire.PoolExtraNonce2Size says; a plain pool may leave more:
//
//	coinbase1 | the link's extranonce1 | zeros | the miner's extranonce1 (4) | its extranonce2 (4) | coinbase2
func minersJob(j *stratum.Job, extraNonce1 []byte, size int) *job.StratumJob {
	coinbase1 := append(append([]byte(nil), j.Coinbase1...), extraNonce1...)
	return &job.StratumJob{
		PrevHash:     j.PrevHash,
		Coinbase1:    append(coinbase1, make([]byte, size-agentwire.PoolExtraNonce2Size)...),
		Coinbase2:    j.Coinbase2,
		MerkleBranch: j.Branch,
		Version:      int32(j.Version),
		Bits:         j.Bits,
		Time:         j.Time,
	}
}

// sentJob is a job as a miner knows it, which sees the low 8 bits of its number.
type sentJob struct {
	work   *work
	number uint32
	later  uint32 // seconds by which its time is later than the job's
}

const (
	// maxSentJobs are known of each miner: those of eight minutes, at 30 s.
	maxSentJobs = 16
	// keptJobs are still known when a clean job is sent: the pool decides what a late share is worth.
	keptJobs = 4
)
