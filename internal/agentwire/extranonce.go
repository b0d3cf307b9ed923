package agentwire

// The sizes of extranonce2, in bytes. The 12 bytes of extranonce in a coinbase are not cut for an agent's miners where
// the pool cuts them for the agent:
//
//	pool:   coinbase1 | extranonce1 (4) | extranonce2 (8)
//	miner:  coinbase1 ----------------- | extranonce1 (4) | extranonce2 (4)
//	                                      = 00 00 session
//
// so a miner's extranonces stay when it is moved to another connection.
const (
	PoolExtraNonce2Size  = 8 // of an agent's connection
	MinerExtraNonce2Size = 4 // of a miner behind an agent
)

// ExtraNonce1 is the extranonce1 of the miner s.
func (s Session) ExtraNonce1() uint32 { return uint32(s) }

// ExtraNonce2 is the extranonce2 of the agent's connection, its bytes as a big-endian number, for the one of the miner
// s.
func (s Session) ExtraNonce2(miner uint32) uint64 { return uint64(s)<<32 | uint64(miner) }
