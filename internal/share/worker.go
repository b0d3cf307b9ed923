package share

import (
	"encoding/binary"
	"strings"

	"btcpool/internal/bitcoin"
)

// WorkerID is the number a worker is known by: the first 8 bytes, in display order, of the double SHA-256 of its name,
// never 0. It does not depend on the user.
func WorkerID(workerName string) int64 {
	hash := bitcoin.DoubleSHA256([]byte(workerName))
	if id := int64(binary.LittleEndian.Uint64(hash[24:])); id != 0 {
		return id
	}
	return 1
}

// What names are cut to, in bytes, and what a worker without one is called.
const (
	maxWorkerName = 20
	maxAgentName  = 30
	defaultWorker = "__default__"
)

// WorkerName returns what a worker that calls itself name is called: without the characters that names do not have,
// cut, never empty.
func WorkerName(name string) string {
	if name = CleanName(name); name == "" {
		return defaultWorker
	}
	return name[:min(len(name), maxWorkerName)]
}

// AgentName returns, cut and cleaned like a worker's name, what a miner's software is called.
func AgentName(name string) string { return CleanName(name[:min(len(name), maxAgentName)]) }

// CleanName keeps only the characters that names may have.
func CleanName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("-._:|^/", r):
			return r
		}
		return -1
	}, name)
}
