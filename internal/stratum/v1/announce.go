package v1

import (
	"btcpool/internal/agentwire"
	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/stratum"
)

// Job is a job as lines, made once for all peers: one for each size of the extranonce2. It is safe for concurrent use.
type Job struct {
	notify [job.GrandExtranonce2Size + 1]stratum.Notify
	time   uint32
}

// NewJob makes the lines of j for the sizes of extranonce2 that are in use. The bytes by which one is shorter than
// job.Extranonce2Size are zero. That of job.GrandExtranonce2Size is for those who serve a pool of their own.
func NewJob(j *job.StratumJob, sizes []int) Job {
	of := Job{time: j.Time}
	for _, n := range sizes {
		if n == job.GrandExtranonce2Size {
			of.notify[n] = stratum.NewNotify(j, j.GrandCoinbase1, j.Coinbase2)
			continue
		}
		of.notify[n] = stratum.NewNotify(j, j.Coinbase1, append(make([]byte, job.Extranonce2Size-n), j.Coinbase2...))
	}
	return of
}

// NewWholeJob makes the lines of j for a size of the extranonce2 that is all there is between the parts of the coinbase.
func NewWholeJob(j *job.StratumJob, size int) Job {
	of := Job{time: j.Time}
	of.notify[size] = stratum.NewNotify(j, j.Coinbase1, j.Coinbase2)
	return of
}

// Announcement is what a peer is told of a job.
type Announcement struct {
	Job    *Job
	Number uint32 // the job's on this connection, from 0
	First  bool   // it is the first since the login
	Later  uint32 // seconds to add to the job's time
	Clean  bool   // the jobs before are worthless

	// Difficulty is that of this job and those to come, when it is new to the peer.
	Difficulty    bitcoin.Difficulty
	NewDifficulty bool
	// Miners are the new difficulties of those behind a farm proxy.
	Miners map[uint16]bitcoin.Difficulty
}

// Announce appends a. To a farm proxy, difficulties come before the job that they are for; of its own it takes only the
// first, as that of miners to come. A peer that has not said what it is, is asked.
func (c Conn) Announce(dst []byte, a *Announcement) []byte {
	if len(a.Miners) > 0 {
		dst = agentwire.AppendSetDifficulties(dst, a.Miners)
	}
	if a.NewDifficulty {
		dst = stratum.AppendSetDifficulty(dst, a.Difficulty)
	}
	dst = a.Job.notify[c.ExtraNonce2Size].AppendTo(dst, c.jobID(a), a.Later, a.Clean)
	if a.First && !c.Named {
		dst = stratum.AppendGetVersion(dst)
	}
	return dst
}

// jobID is what a job is called on this connection: the low bits of its number, which is all that farm proxies can say,
// and where no id may come again the time above them.
func (c Conn) jobID(a *Announcement) uint64 {
	id := uint64(uint8(a.Number))
	if c.UniqueJobIDs {
		id |= uint64(a.Job.time) << 8
	}
	return id
}

// AppendReconnect appends what sends a peer to host:port, or, if host is empty, back to where it came from.
func (c Conn) AppendReconnect(dst []byte, host string, port uint16) []byte {
	return stratum.AppendReconnect(dst, host, port, 0)
}

// AppendSign appends a sign of life for a farm proxy: new difficulties for none of its miners.
func (c Conn) AppendSign(dst []byte) []byte { return agentwire.SetDifficulty{}.AppendTo(dst) }

// AppendMessage appends a text that the peer is to show.
func (c Conn) AppendMessage(dst []byte, text string) []byte {
	return stratum.AppendShowMessage(dst, text)
}
