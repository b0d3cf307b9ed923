package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	"btcpool/internal/miner"
)

// ack is a line of the -acks file: a share that the pool has acknowledged as accepted.
type ack struct {
	Session     string `json:"session"` // extranonce1, hex
	JobID       string `json:"job_id"`
	Extranonce2 string `json:"extranonce2"` // hex
	Time        uint32 `json:"ntime"`
	Nonce       uint32 `json:"nonce"`
	VersionBits uint32 `json:"version_bits"`
	User        string `json:"user"`
	AckedAt     int64  `json:"acked_at"` // unix seconds
}

// errAcks is a failure to write the file: the run is worth nothing without it.
var errAcks = errors.New("acknowledged share not recorded")

// ackFile appends acknowledged shares to a file. Each is written before the next answer of its connection is looked at.
type ackFile struct {
	mu   sync.Mutex
	file *os.File
	stop context.CancelCauseFunc // ends the run
}

func openAcks(path string, stop context.CancelCauseFunc) (*ackFile, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &ackFile{file: file, stop: stop}, nil
}

func (a *ackFile) record(r miner.Result) {
	if r.Outcome != miner.Accepted {
		return
	}
	line, err := json.Marshal(ack{
		Session:     r.Extranonce1,
		JobID:       string(r.JobID),
		Extranonce2: fmt.Sprintf("%0*x", 2*r.Extranonce2Size, r.ExtraNonce2),
		Time:        r.Time,
		Nonce:       r.Nonce,
		VersionBits: r.VersionBits,
		User:        r.User,
		AckedAt:     r.At.Unix(),
	})
	if err == nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		_, err = a.file.Write(append(line, '\n'))
	}
	if err != nil {
		a.stop(fmt.Errorf("%w: %w", errAcks, err))
	}
}
