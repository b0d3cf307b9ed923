// Package pooltest is a small Stratum V1 pool for the tests of miners. It judges shares by its own arithmetic, and a test can
// take over any request to misbehave.
package pooltest

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
)

// Request is what a miner sent.
type Request struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
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
	sessions int
	time     uint32 // of the newest job
}

// Share holds the values of an accepted share.
type Share struct {
	Extranonce1, User, JobID, Extranonce2, Time, Nonce, VersionBits string
}

// Conn is a miner's connection.
type Conn struct {
	net.Conn
	pool        *Pool
	writing     sync.Mutex
	Extranonce1 string
	mask        uint32
	authorized  bool
}

// Parts of the pool's job; everything else is fixed, the time tells jobs apart.
const (
	jobVersion = 0x30000000 // with a bit inside the usual version mask, which BIP 310 lets a miner clear
	jobBits    = 0x1d00ffff
	FirstTime  = 1700000000 // of the first job; each Broadcast adds one second
	coinbase1  = "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff10"
	coinbase2  = "ffffffff0100f2052a01000000015100000000"
)

var branch = []string{
	"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
	"f0e0d0c0b0a090807060504030201000f0e0d0c0b0a090807060504030201000",
}

// prevHash in the byte order of the wire and in that of a header.
const (
	prevHashWire = "04030201080706050c0b0a09100f0e0d14131211181716151c1b1a19201f1e1d"
	prevHash     = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20"
)

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
		c := &Conn{Conn: conn, pool: p, Extranonce1: fmt.Sprintf("%08x", p.sessions)}
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
	const maxLine = 16 << 10
	lines := bufio.NewReaderSize(c, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return
		}
		var req Request
		if json.Unmarshal(line, &req) != nil {
			c.Send(`{"id":null,"result":null,"error":[27,"Illegal params",null]}`)
			continue
		}
		if c.pool.Handle == nil || !c.pool.Handle(c, req) {
			c.Answer(req)
		}
	}
}

// Send writes a line.
func (c *Conn) Send(line string) {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, _ = io.WriteString(c, line+"\n") // a miner that has gone is no fault of the pool
}

// Reply answers a request; result and fault are JSON.
func (c *Conn) Reply(req Request, result, fault string) {
	id := string(req.ID)
	if c.pool.StringIDs {
		id = `"` + id + `"`
	}
	c.Send(fmt.Sprintf(`{"id":%s,"result":%s,"error":%s}`, id, result, fault))
}

// Notify sends the newest job.
func (c *Conn) Notify() {
	c.pool.mu.Lock()
	t := c.pool.time
	c.pool.mu.Unlock()
	branchText, _ := json.Marshal(branch) // strings always can be marshalled
	c.Send(fmt.Sprintf(`{"id":null,"method":"mining.notify","params":["%x","%s","%s","%s",%s,"%08x","%08x","%08x",true]}`,
		t, prevHashWire, coinbase1, coinbase2, branchText, jobVersion, jobBits, t))
}

// Answer does what a pool does with a request.
func (c *Conn) Answer(req Request) {
	switch req.Method {
	case "mining.configure":
		if c.pool.VersionMask == 0 {
			c.Reply(req, "null", `[20,"Unknown method",null]`)
			return
		}
		c.mask = c.pool.VersionMask
		c.Reply(req, fmt.Sprintf(`{"version-rolling":true,"version-rolling.mask":"%08x"}`, c.mask), "null")
	case "mining.subscribe":
		c.Reply(req, fmt.Sprintf(`[[["mining.notify","1"]],"%s",%d]`, c.Extranonce1, c.pool.Extranonce2Size), "null")
	case "mining.authorize":
		c.Reply(req, "true", "null")
		c.pool.mu.Lock()
		c.authorized = true
		c.pool.mu.Unlock()
		c.Send(`{"id":null,"method":"mining.set_difficulty","params":[` + c.pool.Difficulty + `]}`)
		c.Notify()
	case "mining.submit":
		if code, text := c.judge(req); code != 0 {
			c.Reply(req, "null", fmt.Sprintf(`[%d,"%s",null]`, code, text))
			return
		}
		c.Reply(req, "true", "null")
	default:
		c.Reply(req, "null", `[20,"Unknown method",null]`)
	}
}

// judge returns the code and text of a refusal, zero for a good share, which it records.
func (c *Conn) judge(req Request) (int, string) {
	var params []string
	if json.Unmarshal(req.Params, &params) != nil || len(params) < 5 {
		return 27, "Illegal params"
	}
	s := Share{Extranonce1: c.Extranonce1, User: params[0], JobID: params[1], Extranonce2: params[2], Time: params[3], Nonce: params[4]}
	if len(params) > 5 {
		s.VersionBits = params[5]
	}
	jobTime, errJob := number(s.JobID)
	shareTime, errTime := number(s.Time)
	nonce, errNonce := number(s.Nonce)
	bits, errBits := uint32(0), error(nil)
	if s.VersionBits != "" {
		bits, errBits = number(s.VersionBits)
	}
	extranonce2, errExtranonce := hex.DecodeString(s.Extranonce2)
	if errTime != nil || errNonce != nil || errBits != nil || errExtranonce != nil || len(extranonce2) != c.pool.Extranonce2Size {
		return 27, "Illegal params"
	}
	p := c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case errJob != nil || jobTime < FirstTime || jobTime > p.time:
		return 21, "Job not found"
	case shareTime > jobTime+600:
		return 32, "Time too new"
	case bits&^c.mask != 0:
		return 33, "Invalid version mask"
	case p.seen[s]:
		return 22, "Duplicate share"
	}
	if !meets(header(c.Extranonce1+s.Extranonce2, jobVersion&^c.mask|bits, shareTime, nonce), p.Difficulty) {
		return 23, "Low difficulty"
	}
	p.seen[s] = true
	p.accepted = append(p.accepted, s)
	return 0, ""
}

func number(text string) (uint32, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 4 {
		return 0, fmt.Errorf("%q is not 8 hex digits", text)
	}
	return binary.BigEndian.Uint32(b), nil
}

func header(extranonces string, version, time, nonce uint32) []byte {
	hash := bitcoin.DoubleSHA256(unhex(coinbase1 + extranonces + coinbase2))
	for _, b := range branch {
		hash = bitcoin.DoubleSHA256(append(hash[:], unhex(b)...))
	}
	h := binary.LittleEndian.AppendUint32(nil, version)
	h = append(h, unhex(prevHash)...)
	h = append(h, hash[:]...)
	h = binary.LittleEndian.AppendUint32(h, time)
	h = binary.LittleEndian.AppendUint32(h, jobBits)
	return binary.LittleEndian.AppendUint32(h, nonce)
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
