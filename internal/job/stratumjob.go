package job

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/tidwall/gjson"

	"btcpool/internal/auxpow"
	"btcpool/internal/auxwork"
	"btcpool/internal/bitcoin"
)

// maxBranch is more than any block needs: 2^32 transactions.
const maxBranch = 32

// StratumJob is what miners work on, in btcpool's form. The zero values of the parts below the blank line say that
// there is none.
type StratumJob struct {
	ID                ID
	GBTHash           string // RawGBT.Hash of its template, 64 hex digits
	PrevHash          chainhash.Hash
	Height            int32
	Coinbase1         []byte // the coinbase without witness, before the extranonce
	Coinbase2         []byte // and after it
	MerkleBranch      []chainhash.Hash
	Version           int32
	Bits              uint32 // a valid compact target
	Time, MinTime     uint32 // unix seconds
	CoinbaseValue     int64  // satoshi
	WitnessCommitment []byte // output script
	MergedMiningClean bool   // send at once, although not clean

	// Left is a block that miners are to be sent back from at once, although this job is lower: our nodes have left it,
	// or never had it.
	Left chainhash.Hash

	GrandCoinbase1 []byte             // Coinbase1 for clients that serve a pool of their own
	SubPools       map[string]SubPool // other coinbases for the same work
	Proxy          Proxy
	Aux            AuxWork
	RSK            RSKWork
	VCash          VCashWork
}

// SubPool holds the coinbase parts of one sub-pool.
type SubPool struct{ Coinbase1, Coinbase2, GrandCoinbase1 []byte }

// MaxSubPool is how many bytes the name of a sub-pool has at most.
const MaxSubPool = 64

var validSubPool = regexp.MustCompile(fmt.Sprintf(`^[A-Za-z0-9._-]{1,%d}$`, MaxSubPool))

// CheckSubPool says what is wrong with the name of a sub-pool.
func CheckSubPool(name string) error {
	if !validSubPool.MatchString(name) {
		return fmt.Errorf("must be 1 to %d letters, digits, '.', '_' and '-'", MaxSubPool)
	}
	return nil
}

// Own returns the parts of the pool's own coinbase.
func (j *StratumJob) Own() SubPool { return SubPool{j.Coinbase1, j.Coinbase2, j.GrandCoinbase1} }

// With returns j with other parts of the coinbase.
func (j *StratumJob) With(parts SubPool) *StratumJob {
	other := *j
	other.Coinbase1, other.Coinbase2, other.GrandCoinbase1 = parts.Coinbase1, parts.Coinbase2, parts.GrandCoinbase1
	return &other
}

// SubPoolOf returns the sub-pool whose coinbase this one, without witness, is; "" if it is the pool's own, or nobody's.
func (j *StratumJob) SubPoolOf(coinbase []byte) string {
	if j.Own().has(coinbase) {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(j.SubPools)) {
		if j.SubPools[name].has(coinbase) {
			return name
		}
	}
	return ""
}

// has reports whether a coinbase has these parts, with an extranonce between them.
func (p SubPool) has(coinbase []byte) bool {
	before := p.Coinbase1
	if len(p.GrandCoinbase1) > 0 {
		before = p.GrandCoinbase1
	}
	return len(coinbase) == len(p.Coinbase1)+ExtranonceSize+len(p.Coinbase2) &&
		bytes.HasPrefix(coinbase, before) && bytes.HasSuffix(coinbase, p.Coinbase2)
}

// Proxy says that a job is another pool's.
type Proxy struct {
	Extranonce2Size uint32 // bytes that are ours
	Difficulty      uint64 // replaces the network's
}

// AuxWork is the block of an AuxPoW chain, or the tree of the blocks of several, that the coinbase commits to:
// auxwork.Aux without its time.
type AuxWork struct {
	BlockHash            string // display order
	Bits                 uint32
	Height               int32
	RPCAddr, RPCUserPass string
	Chains               []auxpow.Chain // none in btcpool's jobs
}

// RSKWork is the RSK block that the coinbase commits to.
type RSKWork struct {
	BlockHash            string // for merged mining
	NetworkTarget        string // "0x" and 64 hex digits
	FeesForMiner         string
	RPCAddr, RPCUserPass string
}

// VCashWork is the VCash block that the coinbase commits to.
type VCashWork struct {
	BlockHash            string // for merged mining
	NetworkTarget        string // "0x" and 64 hex digits
	Height               uint64
	RPCAddr, RPCUserPass string
}

// noTarget is how btcpool writes the target of a chain that is not there.
const noTarget = "0x0000000000000000000000000000000000000000000000000000000000000000"

// AppendPrevHashBE appends the text of the previous hash in mining.notify: hex of the internal order with the bytes of
// each 4-byte word reversed.
func (j *StratumJob) AppendPrevHashBE(dst []byte) []byte {
	var words chainhash.Hash
	for i := 0; i < len(words); i += 4 {
		binary.BigEndian.PutUint32(words[i:], binary.LittleEndian.Uint32(j.PrevHash[i:]))
	}
	return hex.AppendEncode(dst, words[:])
}

// AppendTo appends the message of the job topic, keys in btcpool's order.
func (j *StratumJob) AppendTo(dst []byte) []byte {
	w := objectWriter{append(dst, '{')}
	w.unsigned("jobId", uint64(j.ID))
	w.text("gbtHash", j.GBTHash)
	w.text("prevHash", j.PrevHash.String())
	w.text("prevHashBeStr", string(j.AppendPrevHashBE(nil)))
	w.integer("height", int64(j.Height))
	w.hex("coinbase1", j.Coinbase1)
	w.hex("grandCoinbase1", j.GrandCoinbase1)
	w.hex("coinbase2", j.Coinbase2)
	w.object("subPool")
	for _, name := range slices.Sorted(maps.Keys(j.SubPools)) {
		sub := j.SubPools[name]
		w.object(name)
		w.hex("coinbase1", sub.Coinbase1)
		w.hex("coinbase2", sub.Coinbase2)
		w.hex("grandCoinbase1", sub.GrandCoinbase1)
		w.end()
	}
	w.end()
	w.hashes("merkleBranch", j.MerkleBranch)
	w.integer("nVersion", int64(j.Version))
	w.unsigned("nBits", uint64(j.Bits))
	w.unsigned("nTime", uint64(j.Time))
	w.unsigned("minTime", uint64(j.MinTime))
	w.integer("coinbaseValue", j.CoinbaseValue)
	w.hex("witnessCommitment", j.WitnessCommitment)
	w.unsigned("proxyExtraNonce2Size", uint64(j.Proxy.Extranonce2Size))
	w.unsigned("proxyJobDifficulty", j.Proxy.Difficulty)
	w.text("nmcBlockHash", j.Aux.BlockHash)
	w.unsigned("nmcBits", uint64(j.Aux.Bits))
	w.integer("nmcHeight", int64(j.Aux.Height))
	w.text("nmcRpcAddr", j.Aux.RPCAddr)
	w.text("nmcRpcUserpass", j.Aux.RPCUserPass)
	if len(j.Aux.Chains) > 0 {
		w.key("auxChains")
		w.dst = auxwork.AppendChains(w.dst, j.Aux.Chains)
	}
	w.text("rskBlockHashForMergedMining", j.RSK.BlockHash)
	w.text("rskNetworkTarget", cmp.Or(j.RSK.NetworkTarget, noTarget))
	w.text("rskFeesForMiner", j.RSK.FeesForMiner)
	w.text("rskdRpcAddress", j.RSK.RPCAddr)
	w.text("rskdRpcUserPwd", j.RSK.RPCUserPass)
	w.boolean("isRskCleanJob", j.MergedMiningClean)
	w.boolean("mergedMiningClean", j.MergedMiningClean)
	w.text("vcashBlockHashForMergedMining", j.VCash.BlockHash)
	w.text("vcashNetworkTarget", cmp.Or(j.VCash.NetworkTarget, noTarget))
	w.unsigned("vcashHeight", j.VCash.Height)
	w.text("vcashdRpcAddress", j.VCash.RPCAddr)
	w.text("vcashdRpcUserPwd", j.VCash.RPCUserPass)
	w.boolean("isVcashCleanJob", j.MergedMiningClean)
	if j.Left != (chainhash.Hash{}) {
		w.text("leftBlock", j.Left.String())
	}
	w.end()
	return w.dst
}

// ParseStratumJob reads a message of the job topic. Keys it does not know are ignored, keys that belong together must
// come together.
func ParseStratumJob(b []byte) (*StratumJob, error) {
	return parse("stratum job", b, readStratumJob)
}

func readStratumJob(f *fields) *StratumJob {
	j := &StratumJob{
		ID:            ID(f.unsigned("jobId", math.MaxUint64)),
		GBTHash:       f.hash("gbtHash").String(),
		PrevHash:      f.hash("prevHash"),
		Height:        int32(f.integer("height", 0, math.MaxInt32)),
		Coinbase1:     f.hex("coinbase1"),
		Coinbase2:     f.hex("coinbase2"),
		MerkleBranch:  f.hashes("merkleBranch", maxBranch),
		Version:       int32(f.integer("nVersion", math.MinInt32, math.MaxInt32)),
		Bits:          uint32(f.unsigned("nBits", math.MaxUint32)),
		Time:          uint32(f.unsigned("nTime", math.MaxUint32)),
		MinTime:       uint32(f.unsigned("minTime", math.MaxUint32)),
		CoinbaseValue: f.integer("coinbaseValue", 0, btcutil.MaxSatoshi),
	}
	if f.has("witnessCommitment") {
		j.WitnessCommitment = f.hex("witnessCommitment")
	}
	if f.has("grandCoinbase1") {
		j.GrandCoinbase1 = f.hex("grandCoinbase1")
	}
	if f.has("subPool") {
		j.SubPools = f.subPools("subPool")
	}
	if f.has("mergedMiningClean") {
		j.MergedMiningClean = f.boolean("mergedMiningClean")
	}
	if f.has("leftBlock") {
		j.Left = f.hash("leftBlock")
	}
	if f.hasAll("proxyExtraNonce2Size", "proxyJobDifficulty") {
		j.Proxy = Proxy{
			Extranonce2Size: uint32(f.unsigned("proxyExtraNonce2Size", math.MaxUint32)),
			Difficulty:      f.unsigned("proxyJobDifficulty", math.MaxUint64),
		}
	}
	if f.hasAll("nmcBlockHash", "nmcBits", "nmcHeight", "nmcRpcAddr", "nmcRpcUserpass") {
		j.Aux = AuxWork{
			BlockHash:   f.text("nmcBlockHash"),
			Bits:        uint32(f.unsigned("nmcBits", math.MaxUint32)),
			Height:      int32(f.integer("nmcHeight", math.MinInt32, math.MaxInt32)),
			RPCAddr:     f.text("nmcRpcAddr"),
			RPCUserPass: f.text("nmcRpcUserpass"),
		}
		if f.has("auxChains") {
			var err error
			j.Aux.Chains, err = auxwork.ParseChains(f.values["auxChains"])
			f.fail("auxChains", err)
		}
	}
	if f.hasAll("rskBlockHashForMergedMining", "rskNetworkTarget", "rskFeesForMiner", "rskdRpcAddress", "rskdRpcUserPwd") {
		j.RSK = RSKWork{
			BlockHash:     f.text("rskBlockHashForMergedMining"),
			NetworkTarget: f.target("rskNetworkTarget"),
			FeesForMiner:  f.text("rskFeesForMiner"),
			RPCAddr:       f.text("rskdRpcAddress"),
			RPCUserPass:   f.text("rskdRpcUserPwd"),
		}
	}
	if f.hasAll("vcashBlockHashForMergedMining", "vcashNetworkTarget", "vcashHeight", "vcashdRpcAddress", "vcashdRpcUserPwd") {
		j.VCash = VCashWork{
			BlockHash:     f.text("vcashBlockHashForMergedMining"),
			NetworkTarget: f.target("vcashNetworkTarget"),
			Height:        f.unsigned("vcashHeight", math.MaxUint64),
			RPCAddr:       f.text("vcashdRpcAddress"),
			RPCUserPass:   f.text("vcashdRpcUserPwd"),
		}
	}
	if prevHashBE := f.text("prevHashBeStr"); f.err == nil {
		f.err = j.check(prevHashBE)
	}
	return j
}

// check verifies what goes beyond single values.
func (j *StratumJob) check(prevHashBE string) error {
	if prevHashBE != string(j.AppendPrevHashBE(nil)) {
		return errors.New("prevHashBeStr does not fit prevHash")
	}
	if len(j.Coinbase1) == 0 || len(j.Coinbase2) == 0 {
		return errors.New("coinbase1 or coinbase2 is empty")
	}
	if _, err := bitcoin.TargetFromBits(j.Bits); err != nil {
		return fmt.Errorf("nBits: %w", err)
	}
	if n := len(j.WitnessCommitment); n != 0 && n < minCommitmentScript {
		return fmt.Errorf("witnessCommitment: %d bytes", n)
	}
	return nil
}

// hashes reads concatenated hashes, 64 hex digits each in display order.
func (f *fields) hashes(key string, highest int) []chainhash.Hash {
	b := f.hex(key)
	if len(b) > highest*chainhash.HashSize || len(b)%chainhash.HashSize != 0 {
		f.fail(key, fmt.Errorf("%d bytes are not 0 to %d hashes", len(b), highest))
		return nil
	}
	var hashes []chainhash.Hash
	for display := range slices.Chunk(b, chainhash.HashSize) {
		slices.Reverse(display)
		hashes = append(hashes, chainhash.Hash(display))
	}
	return hashes
}

func (f *fields) target(key string) string {
	target := f.text(key)
	if target == noTarget {
		return ""
	}
	return target
}

func (f *fields) subPools(key string) map[string]SubPool {
	pools := make(map[string]SubPool)
	list := f.object(key)
	for name := range list.values {
		sub := list.object(name)
		pools[name] = SubPool{
			Coinbase1:      sub.hex("coinbase1"),
			Coinbase2:      sub.hex("coinbase2"),
			GrandCoinbase1: sub.hex("grandCoinbase1"),
		}
		list.fail(name, sub.err)
	}
	f.fail(key, list.err)
	if len(pools) == 0 {
		return nil
	}
	return pools
}

// objectWriter appends the members of a JSON object.
type objectWriter struct{ dst []byte }

func (w *objectWriter) key(key string) {
	if !bytes.HasSuffix(w.dst, []byte{'{'}) {
		w.dst = append(w.dst, ',')
	}
	w.dst = append(gjson.AppendJSONString(w.dst, key), ':')
}

func (w *objectWriter) object(key string) {
	w.key(key)
	w.dst = append(w.dst, '{')
}

func (w *objectWriter) end() { w.dst = append(w.dst, '}') }

func (w *objectWriter) text(key, value string) {
	w.key(key)
	w.dst = gjson.AppendJSONString(w.dst, value)
}

func (w *objectWriter) texts(key string, values []string) {
	w.key(key)
	w.dst = append(w.dst, '[')
	for i, value := range values {
		if i > 0 {
			w.dst = append(w.dst, ',')
		}
		w.dst = gjson.AppendJSONString(w.dst, value)
	}
	w.dst = append(w.dst, ']')
}

func (w *objectWriter) hex(key string, value []byte) {
	w.key(key)
	w.dst = append(hex.AppendEncode(append(w.dst, '"'), value), '"')
}

func (w *objectWriter) hashes(key string, hashes []chainhash.Hash) {
	w.key(key)
	w.dst = append(w.dst, '"')
	for _, hash := range hashes {
		w.dst = append(w.dst, hash.String()...)
	}
	w.dst = append(w.dst, '"')
}

func (w *objectWriter) integer(key string, value int64) {
	w.key(key)
	w.dst = strconv.AppendInt(w.dst, value, 10)
}

func (w *objectWriter) unsigned(key string, value uint64) {
	w.key(key)
	w.dst = strconv.AppendUint(w.dst, value, 10)
}

func (w *objectWriter) boolean(key string, value bool) {
	w.key(key)
	w.dst = strconv.AppendBool(w.dst, value)
}
