// Package regnode is a Bitcoin node without peers: a private chain kept by btcd's consensus packages, with the JSON-RPC
// methods and ZeroMQ messages of Bitcoin Core that a pool uses. Its network is regtest, but for the proof of work,
// which Config sets so that a CPU finds blocks at a pleasant pace.
//
// A block that submitblock has accepted survives the death of the process.
package regnode

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"btcpool/internal/httpapi"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/database"
	_ "github.com/btcsuite/btcd/database/ffldb" // the database of the chain
	"github.com/btcsuite/btcd/mempool"
	"github.com/btcsuite/btcd/mining"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/rs/zerolog"
)

// DefaultBits asks for about 2^27 hashes a block: ten seconds of a CPU miner on two cores.
const DefaultBits = 0x1d1fffff

const (
	defaultTxWait = 10 * time.Second
	stopGrace     = 5 * time.Second
	cookieUser    = "__cookie__"
	cookieFile    = ".cookie"
	chainDir      = "chain-%08x" // by bits
)

// Config of a Node. Only Dir is required.
type Config struct {
	// Dir is the folder of the chain and the cookie, made when it is missing.
	Dir string
	// RPCAddr and ZMQAddr are host:port to listen at; empty: 127.0.0.1 and a free port.
	RPCAddr, ZMQAddr string
	// User and Password are the login of the RPC. Without a user there is a new cookie in Dir, as with Bitcoin Core.
	User, Password string
	// Bits is the compact target of every block; 0: DefaultBits. Another value is another chain.
	Bits uint32
	// TxWait is after how long a long poll answers for new transactions; 0: 10 s.
	TxWait time.Duration
}

// Node is an open chain and its RPC and ZeroMQ listeners.
type Node struct {
	log            zerolog.Logger
	user, password string
	txWait         time.Duration

	params  *chaincfg.Params
	db      database.DB
	chain   *blockchain.BlockChain
	pool    *mempool.TxPool
	builder *mining.BlkTmplGenerator
	journal *journal
	rpc     net.Listener
	pub     *publisher
	opened  []func() error // what ends each thing that is open, in the order of opening

	// mu serialises whatever changes the chain or the memory pool, and the building of templates. It is not held while
	// anyone waits. The chain and the pool have locks of their own for readers.
	mu       sync.Mutex
	txSeq    uint64        // counts the changes of the memory pool
	template *template     // built last, for the tip and the txSeq of then
	changed  chan struct{} // closed and replaced at each change of chain or pool
}

// Open opens or creates the chain in cfg.Dir and binds the listeners. Close the node after Run has returned, or without
// having run it.
func Open(cfg Config, log zerolog.Logger) (_ *Node, err error) {
	if cfg.Dir == "" {
		return nil, errors.New("chain: no directory given")
	}
	params, err := chainParams(cmp.Or(cfg.Bits, DefaultBits))
	if err != nil {
		return nil, err
	}
	n := &Node{
		log:      log.With().Str("component", "regnode").Logger(),
		user:     cfg.User,
		password: cfg.Password,
		txWait:   cmp.Or(cfg.TxWait, defaultTxWait),
		params:   params,
		changed:  make(chan struct{}),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	// Chains of different proof of work have nothing in common.
	dir := filepath.Join(cfg.Dir, fmt.Sprintf(chainDir, params.PowLimitBits))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("chain: %w", err)
	}
	if err := n.openChain(dir); err != nil {
		return nil, fmt.Errorf("chain in %s: %w", dir, err)
	}
	if n.user == "" {
		n.user, n.password = cookieUser, rand.Text()
		cookie := n.user + ":" + n.password
		if err := os.WriteFile(filepath.Join(cfg.Dir, cookieFile), []byte(cookie), 0o600); err != nil {
			return nil, fmt.Errorf("chain: %w", err)
		}
	}
	if n.rpc, err = net.Listen("tcp", cmp.Or(cfg.RPCAddr, "127.0.0.1:0")); err != nil {
		return nil, fmt.Errorf("chain's rpc: %w", err)
	}
	n.opened = append(n.opened, n.rpc.Close)
	if n.pub, err = newPublisher(cmp.Or(cfg.ZMQAddr, "127.0.0.1:0")); err != nil {
		return nil, fmt.Errorf("chain's zmq: %w", err)
	}
	n.opened = append(n.opened, n.pub.socket.Close)
	return n, nil
}

func (n *Node) openChain(dir string) error {
	path := filepath.Join(dir, "blocks")
	db, err := database.Open("ffldb", path, n.params.Net)
	if dbErr := (database.Error{}); errors.As(err, &dbErr) && dbErr.ErrorCode == database.ErrDbDoesNotExist {
		db, err = database.Create("ffldb", path, n.params.Net)
	}
	if err != nil {
		return err
	}
	n.db = db
	n.opened = append(n.opened, db.Close)

	const cacheEntries = 10_000
	var (
		clock      = blockchain.NewMedianTime()
		signatures = txscript.NewSigCache(cacheEntries)
		hashes     = txscript.NewHashCache(cacheEntries)
	)
	n.chain, err = blockchain.New(&blockchain.Config{
		DB:               db,
		ChainParams:      n.params,
		TimeSource:       clock,
		SigCache:         signatures,
		HashCache:        hashes,
		UtxoCacheMaxSize: 1 << 20,
	})
	if err != nil {
		return err
	}
	n.opened = append(n.opened, func() error { return n.chain.FlushUtxoCache(blockchain.FlushRequired) })
	const minRelayFee = 1000 // satoshi per kB, as Bitcoin Core's default
	n.pool = mempool.New(&mempool.Config{
		Policy: mempool.Policy{
			MaxTxVersion:         2,
			DisableRelayPriority: true,
			AcceptNonStd:         true,
			MaxSigOpCostPerTx:    blockchain.MaxBlockSigOpsCost / 5,
			MinRelayTxFee:        minRelayFee,
		},
		ChainParams:    n.params,
		FetchUtxoView:  n.chain.FetchUtxoView,
		BestHeight:     func() int32 { return n.chain.BestSnapshot().Height },
		MedianTimePast: func() time.Time { return n.chain.BestSnapshot().MedianTime },
		CalcSequenceLock: func(tx *btcutil.Tx, view *blockchain.UtxoViewpoint) (*blockchain.SequenceLock, error) {
			return n.chain.CalcSequenceLock(tx, view, true)
		},
		IsDeploymentActive: n.chain.IsDeploymentActive,
		SigCache:           signatures,
		HashCache:          hashes,
	})
	n.builder = mining.NewBlkTmplGenerator(&mining.Policy{
		BlockMaxWeight: blockchain.MaxBlockWeight - 4000, // room for the pool's coinbase
		BlockMaxSize:   blockchain.MaxBlockBaseSize - 1000,
		TxMinFreeFee:   minRelayFee,
	}, n.params, n.pool, n.chain, clock, signatures, hashes)

	recovered, err := n.openJournal(dir)
	if err != nil {
		return err
	}
	n.chain.Subscribe(n.followChain)
	best := n.chain.BestSnapshot()
	n.log.Info().Int32("height", best.Height).Stringer("hash", best.Hash).Int("recovered_blocks", recovered).Msg("chain open")
	return nil
}

// Run answers RPC calls until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.serveRPC(ctx, w, r) })
	return httpapi.Serve(ctx, n.rpc, handler, stopGrace)
}

// Close writes the chain to disk and closes the listeners.
func (n *Node) Close() error {
	var errs []error
	for _, end := range slices.Backward(n.opened) {
		if err := end(); !errors.Is(err, net.ErrClosed) { // Run has closed the listener
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// RPCURL returns the address of the JSON-RPC.
func (n *Node) RPCURL() string { return "http://" + n.rpc.Addr().String() }

// ZMQAddr returns the address at which hashblock and rawblock are published.
func (n *Node) ZMQAddr() string { return "tcp://" + n.pub.socket.Addr().String() }

// User returns the name to log in with.
func (n *Node) User() string { return n.user }

// Password returns the password of User.
func (n *Node) Password() string { return n.password }

// Height returns the height of the newest block.
func (n *Node) Height() int32 { return n.chain.BestSnapshot().Height }

// chainParams returns the parameters of regtest with a proof of work of bits.
func chainParams(bits uint32) (*chaincfg.Params, error) {
	limit := blockchain.CompactToBig(bits)
	if limit.Sign() <= 0 || limit.BitLen() > 255 || blockchain.BigToCompact(limit) != bits {
		return nil, fmt.Errorf("chain: bits %08x: not a compact target", bits)
	}
	p := chaincfg.RegressionNetParams
	genesis := *p.GenesisBlock
	genesis.Header.Bits = bits
	hash := genesis.Header.BlockHash()
	p.GenesisBlock, p.GenesisHash = &genesis, &hash
	p.PowLimit, p.PowLimitBits = limit, bits
	p.SubsidyReductionInterval = 0 // regtest halves every 150 blocks: nothing would be left after half a day
	// A chain keeps its clock in these: they must not be shared.
	for i := range p.Deployments {
		p.Deployments[i].DeploymentStarter = chaincfg.NewMedianTimeDeploymentStarter(time.Time{})
		p.Deployments[i].DeploymentEnder = chaincfg.NewMedianTimeDeploymentEnder(time.Time{})
	}
	return &p, nil
}

// BitsFor returns the compact target that so many hashes meet on average, 256 at least.
func BitsFor(hashes float64) uint32 {
	const precision = 1 << 8
	target := new(big.Int).Lsh(big.NewInt(precision), 256)
	return blockchain.BigToCompact(target.Div(target, big.NewInt(int64(max(hashes, 256)*precision))))
}

// ChainBits returns the bits of the chain in dir that was used last, false when there is none.
func ChainBits(dir string) (bits uint32, ok bool) {
	entries, _ := os.ReadDir(dir) // what cannot be read is told when the chain is opened
	var latest time.Time
	for _, e := range entries {
		var of uint32
		info, err := e.Info()
		if _, scanErr := fmt.Sscanf(e.Name(), chainDir, &of); err == nil && scanErr == nil && !info.ModTime().Before(latest) {
			bits, ok, latest = of, true, info.ModTime()
		}
	}
	return bits, ok
}

// tip returns the hash of the newest block.
func (n *Node) tip() chainhash.Hash { return n.chain.BestSnapshot().Hash }
