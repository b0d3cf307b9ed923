package miner

import (
	"bufio"
	"io"
	"net"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
)

// What tests in the external package need to see.

func NewLines(r io.Reader) *bufio.Scanner { return newLines(r) }

func (j *Job) Variation(counter uint64) ([]byte, uint32, uint32) { return j.variation(counter) }

func Hash(header *[headerSize]byte, nonce uint32) chainhash.Hash {
	h := newHasher()
	h.reset(header)
	h.hash(nonce)
	return *h.sum()
}

func Scanner(header *[headerSize]byte) func(first uint32, count int, target *bitcoin.Target) (uint32, int, bool) {
	h := newHasher()
	h.reset(header)
	return h.scan
}

type Histogram = histogram

func (h *histogram) Add(ns int64) { h.add(time.Duration(ns)) }

func (h *histogram) Percentiles() Percentiles { return h.percentiles() }

// Serve runs a session on a connection made elsewhere.
func (c *Client) Serve(conn net.Conn) error {
	c.conn = conn
	defer c.end()
	return c.serve(conn)
}
