// Package job holds what travels from a node to the miners: the raw template (RawGBT), the template as the pool
// understands it (Template) and the Stratum job (StratumJob). RawGBT and StratumJob are written in btcpool's JSON, so
// that its services and ours can read each other's topics; decoders ignore keys they do not know.
//
// Decoders treat their input as hostile: values are checked, sizes and nesting bounded. What they return does not
// retain the input.
package job

import "time"

// The extranonce of a job: what fills the gap between its coinbase parts.
const (
	Extranonce1Size = 4 // bytes, the session's
	Extranonce2Size = 8 // bytes, the miner's (behind an agent: the first half is the agent's)
	ExtranonceSize  = Extranonce1Size + Extranonce2Size

	// GrandPrefixSize is what a client that serves a pool of its own gets besides. Other miners' coinbases have zeros
	// before the extranonce instead.
	GrandPrefixSize      = 4
	GrandExtranonce2Size = GrandPrefixSize + Extranonce2Size
)

// ID identifies a job: unix seconds in the high 32 bits, a counter, and the id of the jobmaker in the low 8 bits. A
// later job of one jobmaker has a larger ID, but for those from before its clock was set back.
type ID uint64

// Time returns when the job was made, to the second.
func (id ID) Time() time.Time { return time.Unix(int64(id>>32), 0) }

// Server returns the id of the jobmaker.
func (id ID) Server() uint8 { return uint8(id) }

// IDs allocates the IDs of one jobmaker. It is not safe for concurrent use.
type IDs struct {
	server uint8
	last   ID
	steps  int // how often the clock went back
}

// clockStep is how far the clock must have gone back for ids to follow it, rather than to wait for it with the counter:
// who reads them takes them for the time.
const clockStep = 10 * time.Second

// NewIDs returns an allocator for the jobmaker with the id server.
func NewIDs(server uint8) *IDs { return &IDs{server: server} }

// Next returns an ID that was not there before, larger than the one before it unless the clock was set back. The
// counter starts at the millisecond of now, so that a jobmaker which restarts within a second repeats none of its IDs,
// and above it counts the steps of the clock, for seconds that come twice.
func (ids *IDs) Next(now time.Time) ID {
	const counter, milliseconds = 24, 10 // bits
	if ids.last.Time().Sub(now) > clockStep {
		ids.steps = (ids.steps + 1) % (1 << (counter - milliseconds))
		ids.last = 0
	}
	count := ids.steps<<milliseconds | now.Nanosecond()/int(time.Millisecond)
	id := ID(now.Unix())<<32 | ID(count)<<8 | ID(ids.server)
	if id <= ids.last {
		id = ids.last + 1<<8 // the same millisecond, or the clock went back a little
	}
	ids.last = id
	return id
}
