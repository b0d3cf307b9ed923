// Package pooltest is a small Stratum V1 pool for the tests of miners. It judges shares by its own arithmetic, and a
// test can take over any request to misbehave.
package pooltest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/stratum"
)

// Request is what a miner sent: ID and Params are JSON. An answer has no method.
type Request struct {
	ID     []byte
	Method string
	Params []byte
}

// Pool is a pool on a free port. Its exported fields are set before Start.
type Pool struct {
	Difficulty      string // as JSON; default 0.0000001 (about 430 hashes a share)
	Extranonce2Size int    // default 4
	VersionMask     uint32 // granted at most; 0: mining.configure gets an error
	StringIDs       bool   // answers carry the id as a string
	// Handle is asked first; when it returns true the request is dealt with.
	Handle func(c *Conn, req Request) bool

	listener net.Listener
	wg       sync.WaitGroup

	mu       sync.Mutex
	conns    map[*Conn]bool
	accepted []Share
	seen     map[Share]bool
	sessions uint32
	time     uint32 // of the newest job
}

// Share holds the values of an accepted share.
type Share struct {
	Extranonce1, User, JobID string
	Extranonce2              uint64
	Time, Nonce, VersionBits uint32
}

// Conn is a miner's connection.
type Conn struct {
	net.Conn
	pool        *Pool
	writing     sync.Mutex
	extranonce1 uint32
	mask        uint32
	authorized  bool
}

// FirstTime is the time and id of the first job; each Broadcast adds one second.
const FirstTime = 1700000000

// poolJob is what all jobs have in common. The version has a bit inside the usual mask, which BIP 310 lets a miner clear.
var poolJob = job.StratumJob{
	PrevHash:  chainhash.Hash(unhex("0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20")),
	Coinbase1: unhex("01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff10"),
	Coinbase2: unhex("ffffffff0100f2052a01000000015100000000"),
	MerkleBranch: []chainhash.Hash{
		chainhash.Hash(unhex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")),
		chainhash.Hash(unhex("f0e0d0c0b0a090807060504030201000f0e0d0c0b0a090807060504030201000")),
	},
	Version: 0x30000000,
	Bits:    0x1d00ffff,
}

// Start makes the pool listen until the test ends.
func (p *Pool) Start(t testing.TB) *Pool {
	t.Helper()
	if p.Difficulty == "" {
		p.Difficulty = "0.0000001"
	}
	if p.Extranonce2Size == 0 {
		p.Extranonce2Size = 4
	}
	p.conns, p.seen, p.time = make(map[*Conn]bool), make(map[Share]bool), FirstTime
	var err error
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = p.listener.Close()
		p.Kick()
		p.wg.Wait()
	})
	return p
}

// Addr returns host:port.
func (p *Pool) Addr() string { return p.listener.Addr().String() }

// Accepted returns the accepted shares.
func (p *Pool) Accepted() []Share {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.accepted)
}

// Kick closes all connections.
func (p *Pool) Kick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// Broadcast sends a new job to all authorized connections.
func (p *Pool) Broadcast() {
	p.mu.Lock()
	p.time++
	var ready []*Conn
	for c := range p.conns {
		if c.authorized {
			ready = append(ready, c)
		}
	}
	p.mu.Unlock()
	for _, c := range ready {
		c.Notify()
	}
}

func (p *Pool) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.sessions++
		c := &Conn{Conn: conn, pool: p, extranonce1: p.sessions}
		p.conns[c] = true
		p.mu.Unlock()
		p.wg.Go(func() {
			defer func() {
				c.Close()
				p.mu.Lock()
				delete(p.conns, c)
				p.mu.Unlock()
			}()
			c.serve()
		})
	}
}

func (c *Conn) serve() {
	lines := bufio.NewReaderSize(c, stratum.MaxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return
		}
		r, _, err := stratum.ParseRequest(bytes.Clone(line))
		req := Request{r.ID, string(r.Method), r.Params}
		switch {
		case err != nil && !errors.Is(err, stratum.ErrAnswer):
			c.Reply(req, "null", illegalParams)
		case c.pool.Handle == nil || !c.pool.Handle(c, req):
			c.Answer(req)
		}
	}
}

// Send writes a line.
func (c *Conn) Send(line string) { c.write([]byte(line + "\n")) }

func (c *Conn) write(line []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, _ = c.Write(line) // a miner that has gone is no fault of the pool
}

// Reply answers a request; result and fault are JSON.
func (c *Conn) Reply(req Request, result, fault string) {
	c.write(stratum.AppendAnswer(nil, c.id(req), result, fault))
}

func (c *Conn) id(req Request) []byte {
	if c.pool.StringIDs && req.ID != nil {
		return fmt.Appendf(nil, "%q", req.ID)
	}
	return req.ID
}

// Notify sends the newest job.
func (c *Conn) Notify() {
	c.pool.mu.Lock()
	j := poolJob
	j.Time = c.pool.time
	c.pool.mu.Unlock()
	c.SendJob(&j, uint64(j.Time))
}

// SendJob sends any job.
func (c *Conn) SendJob(j *job.StratumJob, id uint64) {
	c.write(stratum.NewNotify(j, j.Coinbase1, j.Coinbase2).AppendTo(nil, id, 0, true))
}

const (
	illegalParams = `[27,"Illegal params",null]`
	unknownMethod = `[20,"Unknown method",null]`
)

// Answer does what a pool does with a request.
func (c *Conn) Answer(req Request) {
	switch req.Method {
	case "mining.configure":
		wishes, err := stratum.ParseConfigure(req.Params)
		if err != nil || c.pool.VersionMask == 0 {
			c.Reply(req, "null", unknownMethod)
			return
		}
		c.mask = c.pool.VersionMask
		c.write(stratum.AppendConfigured(nil, c.id(req), wishes, c.mask))
	case "mining.subscribe":
		c.write(stratum.AppendSubscribed(nil, c.id(req), c.extranonce1, c.pool.Extranonce2Size))
	case "mining.authorize":
		c.Reply(req, "true", "null")
		c.pool.mu.Lock()
		c.authorized = true
		c.pool.mu.Unlock()
		difficulty := stratum.Request{Method: []byte("mining.set_difficulty"), Params: []byte("[" + c.pool.Difficulty + "]")}
		c.write(difficulty.AppendTo(nil))
		c.Notify()
	case "mining.submit":
		if fault := c.judge(req); fault != "" {
			c.Reply(req, "null", fault)
			return
		}
		c.Reply(req, "true", "null")
	default:
		c.Reply(req, "null", unknownMethod)
	}
}

// judge returns the error of a refusal, "" for a good share, which it records.
func (c *Conn) judge(req Request) string {
	p := c.pool
	in, err := stratum.ParseSubmit(req.Params, p.Extranonce2Size)
	if err != nil {
		return illegalParams
	}
	s := Share{
		Extranonce1: fmt.Sprintf("%08x", c.extranonce1), User: string(in.Worker), JobID: string(in.JobID),
		Extranonce2: in.ExtraNonce2, Time: in.Time, Nonce: in.Nonce, VersionBits: in.VersionBits,
	}
	jobTime, err := strconv.ParseUint(s.JobID, 10, 32)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil || jobTime < FirstTime || jobTime > uint64(p.time):
		return `[21,"Job not found",null]`
	case uint64(s.Time) > jobTime+600:
		return `[32,"Time too new",null]`
	case s.VersionBits&^c.mask != 0:
		return `[33,"Invalid version mask",null]`
	case p.seen[s]:
		return `[22,"Duplicate share",null]`
	}
	if !meets(c.header(s), p.Difficulty) {
		return `[23,"Low difficulty",null]`
	}
	p.seen[s] = true
	p.accepted = append(p.accepted, s)
	return ""
}

// header returns the block header of a share.
func (c *Conn) header(s Share) []byte {
	extranonces := fmt.Sprintf("%s%0*x", s.Extranonce1, 2*c.pool.Extranonce2Size, s.Extranonce2)
	hash := bitcoin.DoubleSHA256(slices.Concat(poolJob.Coinbase1, unhex(extranonces), poolJob.Coinbase2))
	for _, b := range poolJob.MerkleBranch {
		hash = bitcoin.DoubleSHA256(append(hash[:], b[:]...))
	}
	h := binary.LittleEndian.AppendUint32(nil, uint32(poolJob.Version)&^c.mask|s.VersionBits)
	h = append(h, poolJob.PrevHash[:]...)
	h = append(h, hash[:]...)
	h = binary.LittleEndian.AppendUint32(h, s.Time)
	h = binary.LittleEndian.AppendUint32(h, poolJob.Bits)
	return binary.LittleEndian.AppendUint32(h, s.Nonce)
}

// meets compares hash × difficulty with 0xffff·2^208.
func meets(header []byte, difficulty string) bool {
	d, ok := new(big.Rat).SetString(difficulty)
	hash, err := new(big.Int).SetString(chainhash.Hash(bitcoin.DoubleSHA256(header)).String(), 16)
	if !ok || !err {
		return false
	}
	one := new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(0xffff), 208))
	return d.Mul(d, new(big.Rat).SetInt(hash)).Cmp(one) <= 0
}

// unhex decodes constants of this package and values checked before.
func unhex(text string) []byte {
	b, _ := hex.DecodeString(text)
	return b
}
