package blkmaker

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/tidwall/gjson"
	"golang.org/x/time/rate"

	"btcpool/internal/auxpow"
	"btcpool/internal/auxwork"
	"btcpool/internal/auxwork/rskrpc"
	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/config"
	"btcpool/internal/job"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

const (
	// mergedFor is how long after its share a block of another chain is
	// submitted: the node that made it knows it for about as long.
	mergedFor = 10 * time.Minute
	// RSK's node is called rskPerSecond times at most.
	rskPerSecond = 2
)

// mergedNode is a node of another chain.
type mergedNode interface {
	// submit gives a block to the node. Its answer is in words; final says that the same call again would not change
	// it.
	submit(ctx context.Context, b *mergedBlock) (response, result string, final bool)
	// locate returns where the node has a block that was submitted, nil when it does not know it.
	locate(ctx context.Context, b *store.MergedBlock) (*noderpc.BlockInfo, error)
}

// mergedNodes are the nodes of other chains by the name of the chain.
type mergedNodes map[string][]mergedNode

// mergedBlock is a block of another chain that a parent solves.
type mergedBlock struct {
	parent       *auxpow.Parent
	transactions int           // how many the parent block has
	chain        *auxpow.Chain // for RSK without its place
	proof        string        // hex; empty for RSK
}

// newMergedNodes makes clients, without calling, and has closing close them.
func newMergedNodes(cfg Config, closing *service.Closing) (mergedNodes, error) {
	nodes := make(mergedNodes)
	add := func(name string, n mergedNode, end func()) {
		nodes[name] = append(nodes[name], n)
		closing.Add(func() error { end(); return nil })
	}
	for i, c := range cfg.AuxNodes {
		client, err := noderpc.New(c.Config)
		if err != nil {
			return nil, config.In(fmt.Sprintf("aux_nodes[%d]", i), err)
		}
		add(c.Name, &auxNode{client}, client.Close)
	}
	for i, c := range cfg.RSKNodes {
		node, err := newRSKNode(c.Config)
		if err != nil {
			return nil, config.In(fmt.Sprintf("rsk_nodes[%d]", i), err)
		}
		add(c.Name, node, node.client.Close)
	}
	return nodes, nil
}

// auxNode is a node of an AuxPoW chain.
type auxNode struct{ client *noderpc.Client }

func (n *auxNode) submit(ctx context.Context, b *mergedBlock) (response, result string, final bool) {
	var help string
	if err := n.client.Call(ctx, "help", &help); err != nil {
		return err.Error(), resultUndecided, false
	}
	method := "getauxblock" // what old nodes call it
	if strings.Contains(help, "submitauxblock") {
		method = "submitauxblock"
	}
	var answer json.RawMessage
	err := n.client.Call(ctx, method, &answer, b.chain.Hash.String(), b.proof)
	if refusal := (*noderpc.Error)(nil); errors.As(err, &refusal) {
		// Without peers, in initial download, starting (src/rpc/protocol.h).
		passing := refusal.Code == -9 || refusal.Code == -10 || refusal.Code == -28
		return err.Error(), resultRejected, !passing
	}
	switch {
	case err != nil:
		return err.Error(), resultUndecided, false
	case string(answer) == "true" || string(answer) == "null": // the latter says submitblock, too
		return string(answer), resultAccepted, true
	}
	return string(answer), resultRejected, true
}

func (n *auxNode) locate(ctx context.Context, b *store.MergedBlock) (*noderpc.BlockInfo, error) {
	const methodNotFound, blockNotFound = -32601, -5
	info, err := n.client.Block(ctx, b.Hash)
	refusal := (*noderpc.Error)(nil)
	if errors.As(err, &refusal) && refusal.Code == methodNotFound { // an old node
		err = n.client.Call(ctx, "getblock", &info, b.Hash)
	}
	if errors.Is(err, noderpc.ErrUnknownBlock) || errors.As(err, &refusal) && refusal.Code == blockNotFound {
		return nil, nil
	}
	return &info, err
}

// rskNode is a node of RSK.
type rskNode struct {
	client *rskrpc.Client
	limit  *rate.Limiter
}

func newRSKNode(cfg rskrpc.Config) (*rskNode, error) {
	client, err := rskrpc.New(cfg)
	if err != nil {
		return nil, err
	}
	return &rskNode{client, rate.NewLimiter(rskPerSecond, 1)}, nil
}

func (n *rskNode) submit(ctx context.Context, b *mergedBlock) (response, result string, final bool) {
	err := n.limit.Wait(ctx)
	if err == nil {
		response, err = n.client.Submit(ctx, b.parent, b.transactions)
	}
	if refusal := (*rskrpc.Error)(nil); errors.As(err, &refusal) {
		// The node may get its module mnr later.
		const methodNotFound = -32601
		return err.Error(), resultRejected, refusal.Code != methodNotFound
	}
	if err != nil {
		return err.Error(), resultUndecided, false
	}
	switch gjson.Get(response, "blockResult").Str { // ImportResult of RSKj
	case "INVALID_BLOCK":
		return response, resultRejected, true
	case "NO_PARENT":
		return response, resultUndecided, false
	}
	return response, resultAccepted, true
}

// locate asks for the block by RSK's own hash, which the node named when it took the block.
func (n *rskNode) locate(ctx context.Context, b *store.MergedBlock) (*noderpc.BlockInfo, error) {
	own := gjson.Get(b.Response, "blockHash").Str
	if own == "" {
		return nil, nil
	}
	place, err := n.client.Block(ctx, own)
	if errors.Is(err, rskrpc.ErrUnknownBlock) {
		return nil, nil
	}
	return &noderpc.BlockInfo{Height: int32(min(place.Height, math.MaxInt32)), Confirmations: place.Confirmations}, err
}

// solveAux submits the blocks of all AuxPoW chains that a share solves.
func (w worker) solveAux(key solvedKey, solved *auxwork.AuxSolved, sent time.Time) (result string) {
	parent := &auxpow.Parent{Header: solved.Header, Coinbase: solved.Coinbase}
	if w.outOfReach(key, solved.JobID) {
		return w.recordMergedAlone(key, sent)
	}
	j, _, result := w.prove(key, solved.JobID, parent, sent)
	if j == nil {
		return result
	}
	chains := j.Aux.Chains
	if len(chains) == 0 { // btcpool's: a single one, without a name
		chains = []auxpow.Chain{{Name: nameOr(solved.RPCAddr, "aux"), Hash: solved.Hash, Height: j.Aux.Height, Bits: j.Aux.Bits}}
	}
	nodes := w.merged
	if len(nodes[chains[0].Name]) == 0 && isAddress(solved.RPCAddr) {
		user, password, _ := strings.Cut(solved.RPCUserPass, ":")
		client, err := noderpc.New(noderpc.Config{URL: withScheme(solved.RPCAddr), User: user, Password: password})
		if err != nil {
			return w.noNode(key, err)
		}
		defer client.Close()
		nodes = mergedNodes{chains[0].Name: {&auxNode{client}}}
	}
	var blocks []*mergedBlock
	for _, c := range parent.Solved(chains) {
		blocks = append(blocks, &mergedBlock{parent: parent, chain: &c, proof: hex.EncodeToString(parent.Proof(&c))})
	}
	return w.submitMerged(key, blocks, nodes, sent)
}

// solveRSK submits the block of RSK that a share solves.
func (w worker) solveRSK(key solvedKey, solved *auxwork.RSKSolved, sent time.Time) (result string) {
	parent := &auxpow.Parent{Header: solved.Header, Coinbase: solved.Coinbase}
	if w.outOfReach(key, solved.JobID) {
		return w.recordMergedAlone(key, sent)
	}
	j, txs, result := w.prove(key, solved.JobID, parent, sent)
	if j == nil {
		return result
	}
	var hash auxwork.RSKHash
	if err := hash.UnmarshalText([]byte(j.RSK.BlockHash)); err != nil {
		w.log.Error().Err(err).Stringer("hash", key.Hash).Uint64("job", solved.JobID).Msg("job of a solved RSK share has no RSK block")
		return w.countMerged(kindRSK, resultInvalid)
	}
	chain := &auxpow.Chain{Name: nameOr(solved.RPCAddr, "rsk"), Hash: chainhash.Hash(hash.Target())}
	nodes := w.merged
	if len(nodes[chain.Name]) == 0 && isAddress(solved.RPCAddr) {
		user, password, _ := strings.Cut(solved.RPCUserPass, ":")
		node, err := newRSKNode(rskrpc.Config{URL: withScheme(solved.RPCAddr), User: user, Password: password})
		if err != nil {
			return w.noNode(key, err)
		}
		defer node.client.Close()
		nodes = mergedNodes{chain.Name: {node}}
	}
	return w.submitMerged(key, []*mergedBlock{{parent: parent, transactions: 1 + len(txs), chain: chain}}, nodes, sent)
}

// isAddress tells the address of a node, as btcpool's messages have it, from the name of a chain.
func isAddress(text string) bool { return strings.Contains(text, ":") }

// nameOr returns the name that a message gives, or btcpool's default one.
func nameOr(text, name string) string {
	if text == "" || isAddress(text) {
		return name
	}
	return text
}

// withScheme makes a URL of an address as btcpool's messages have it.
func withScheme(addr string) string {
	if strings.Contains(addr, "://") {
		return addr
	}
	return "http://" + addr
}

func (w worker) noNode(key solvedKey, err error) (result string) {
	w.log.Error().Err(err).Stringer("hash", key.Hash).Msg("node of a merged block cannot be called")
	return w.countMerged(key.Kind, resultInvalid)
}

func (w worker) countMerged(kind kind, result string) string {
	w.metrics.merged.WithLabelValues(string(kind), result).Inc()
	return result
}

// outOfReach reports whether an earlier run has submitted blocks of a solved share whose job is forgotten.
func (w worker) outOfReach(key solvedKey, id uint64) bool {
	_, _, _, err := w.cache.find(job.ID(id))
	return err != nil && w.journal.madeOf(key) != nil
}

// recordMergedAlone writes down the blocks that an earlier run has submitted.
func (w worker) recordMergedAlone(key solvedKey, sent time.Time) (result string) {
	for _, b := range w.journal.madeOf(key).Merged {
		if w.recordMerged(b.row(key, sent)) != nil {
			return ""
		}
	}
	w.journal.wrote(key)
	return w.countMerged(key.Kind, resultRecorded)
}

// mergedRows returns what is to be written down of blocks, with the answers that an earlier run had.
func mergedRows(blocks []*mergedBlock, before *made) []mergedMade {
	rows := make([]mergedMade, len(blocks))
	for i, b := range blocks {
		rows[i] = mergedMade{Chain: b.chain.Name, Hash: b.chain.Hash.String(), Proof: b.proof}
		if before == nil {
			continue
		}
		for _, was := range before.Merged {
			if was.Chain == rows[i].Chain && was.Hash == rows[i].Hash {
				rows[i].Verdict, rows[i].Response = was.Verdict, was.Response
			}
		}
	}
	return rows
}

// row is what the database is told of a block of another chain.
func (b *mergedMade) row(key solvedKey, found time.Time) store.MergedBlock {
	return store.MergedBlock{
		ParentHash: key.Hash.String(), Hash: b.Hash, Chain: b.Chain,
		Proof: b.Proof, Response: b.Response, CreatedAt: found, State: stateOf(b.Verdict),
	}
}

func (w worker) recordMerged(row store.MergedBlock) error {
	return w.withStore(w.work, "write merged block", func(db *store.Store) error { return db.AddMergedBlock(w.work, row) })
}

// prove completes parent by the branch of its job, and checks that the coinbase is in the header. Without job it
// returns what became of the share; that is nothing when ctx ended.
func (w worker) prove(key solvedKey, id uint64, parent *auxpow.Parent, sent time.Time) (j *job.StratumJob, txs []string, result string) {
	log := w.log.With().Str("kind", string(key.Kind)).Stringer("hash", key.Hash).Uint64("job", id).Logger()
	log.Info().Msg("solved share of another chain")
	j, txs, err := w.await(id, sent, log)
	if err != nil && w.ctx.Err() != nil {
		return nil, nil, ""
	}
	result = resultUnknown
	if err == nil {
		result = resultInvalid
		parent.Branch = j.MerkleBranch
		root := bitcoin.MerkleRoot(bitcoin.DoubleSHA256(parent.Coinbase), parent.Branch)
		if root == chainhash.Hash(parent.Header[36:68]) {
			return j, txs, ""
		}
		err = errors.New("its coinbase is not in its header")
	}
	log.Error().Err(err).Hex("header", parent.Header[:]).Hex("coinbase", parent.Coinbase).Msg("no proof can be made of a solved share")
	return nil, nil, w.countMerged(key.Kind, result)
}

// submitMerged submits blocks and writes down what the nodes said. It returns what became of the first block that was
// not accepted, and nothing when a context ended.
func (w worker) submitMerged(key solvedKey, blocks []*mergedBlock, nodes mergedNodes, sent time.Time) (result string) {
	ctx, cancel := context.WithDeadline(w.work, sent.Add(mergedFor))
	defer cancel()
	results := make([]string, len(blocks))
	rows := mergedRows(blocks, w.journal.madeOf(key))
	w.journal.make(key, &made{Merged: rows})
	var all sync.WaitGroup
	for i, b := range blocks {
		row := rows[i]
		all.Go(func() {
			if row.Verdict != resultAccepted && (row.Verdict == "" || ctx.Err() == nil) {
				row.Response, row.Verdict = w.offerMerged(ctx, key, b, nodes[b.chain.Name])
			}
			if w.work.Err() != nil {
				return
			}
			if w.recordMerged(row.row(key, sent)) == nil {
				results[i] = w.countMerged(key.Kind, row.Verdict)
			}
		})
	}
	all.Wait()
	result = resultAccepted
	for _, r := range results {
		if r == "" {
			return ""
		}
		if result == resultAccepted {
			result = r
		}
	}
	w.journal.wrote(key)
	return result
}

// stateOf returns the state of a block with which a submission ended so.
func stateOf(result string) store.BlockState {
	switch result {
	case resultAccepted:
		return store.Accepted
	case resultRejected:
		return store.Rejected
	}
	return store.Submitted
}

// offerMerged gives a block to the nodes of its chain, one after the other and again and again, until one accepts it,
// all have refused it, or ctx ends.
func (w worker) offerMerged(ctx context.Context, key solvedKey, b *mergedBlock, nodes []mergedNode) (response, result string) {
	log := w.log.With().Str("chain", b.chain.Name).Stringer("block", b.chain.Hash).Stringer("hash", key.Hash).Logger()
	if len(nodes) == 0 {
		log.Error().Msg("merged block not submitted: no [[aux_nodes]] or [[rsk_nodes]] of its chain are configured")
		return "no node configured", resultRejected
	}
	for pauses := retryPace().Pauses(); ; {
		open := false
		for i, n := range nodes {
			answer, verdict, final := n.submit(ctx, b)
			if answer != response {
				log.Info().Int("node", i).Str("verdict", verdict).Str("response", answer).Msg("merged block submitted")
				w.journal.answer(key, fmt.Sprintf("%s/%d", b.chain.Name, i), verdict, answer)
			}
			response, result = answer, verdict
			if verdict == resultAccepted {
				return response, result
			}
			open = open || !final
		}
		if !open || !retry.Sleep(ctx, pauses.NextBackOff()) {
			return response, result
		}
	}
}
