package job

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/jsonscan"
)

// minCommitmentScript is the length of a witness commitment's script, which may carry more behind it (BIP 141).
const minCommitmentScript = 38

// maxTransactions is more than fit into a block: 4,000,000 weight units by 60 bytes of 4 units, the smallest
// transaction there can be.
const maxTransactions = 4_000_000 / (60 * 4)

// Template is what the pool needs of a block template (BIP 22, 23, 145).
type Template struct {
	Height            int32
	PrevHash          chainhash.Hash
	Bits              uint32 // a valid compact target
	CurTime, MinTime  uint32 // unix seconds; MinTime is CurTime when the node gives none
	Version           int32
	CoinbaseValue     int64            // satoshi
	Transactions      int              // without the coinbase
	Weight            int              // the transactions' together; 0 when the node does not say
	MerkleBranch      []chainhash.Hash // hashes from the coinbase to the root, by the ids that the node says
	WitnessCommitment []byte           // output script, nil when no transaction has a witness
	CoinbaseAux       []byte           // the values of coinbaseaux
	LongPollID        string           // "" when the node has no long poll
	Rules             []string         // as the node gives them, a leading '!' included
}

// Empty reports whether the template has no transactions.
func (t *Template) Empty() bool { return t.Transactions == 0 }

// CheckNetwork returns an error for a template that no node with the chain of n makes. One of another network that
// could be of n as well gets through.
func (t *Template) CheckNetwork(n bitcoin.Network) error {
	easiest, err := bitcoin.TargetFromBits(n.Params.PowLimitBits)
	if err != nil {
		return err
	}
	target, err := bitcoin.TargetFromBits(t.Bits)
	if err != nil {
		return err
	}
	if !easiest.Met((*chainhash.Hash)(&target)) {
		return fmt.Errorf("not of %s: bits %08x are easier than %08x", n.Name, t.Bits, n.Params.PowLimitBits)
	}
	if points := n.Params.Checkpoints; len(points) > 0 && t.Height <= points[len(points)-1].Height {
		return fmt.Errorf("not of %s: height %d is in its past", n.Name, t.Height)
	}
	if !n.SignedBlocks && slices.Contains(t.Rules, "!signet") {
		return fmt.Errorf("not of %s but of a signet", n.Name)
	}
	return nil
}

// ParseTemplate reads the RPC response to getblocktemplate, of Bitcoin Core or btcd. A response with an RPC error, and
// a template with a rule that must be understood (BIP 9) and is not, are errors.
func ParseTemplate(response []byte) (*Template, error) {
	a, err := parseAnswer(response)
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	t, err := parseTemplate(a)
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	return t, nil
}

// TemplateTransactions returns the height of a response to getblocktemplate and its serialized transactions, with their
// witnesses, in order and without the coinbase.
func TemplateTransactions(response []byte) (height int32, txs [][]byte, err error) {
	a, err := parseAnswer(response)
	if err != nil {
		return 0, nil, fmt.Errorf("template: %w", err)
	}
	if height = a.height("height"); a.err != nil {
		return 0, nil, fmt.Errorf("template: %w", a.err)
	}
	err = a.eachTransaction(func(tx transaction) error {
		data, err := tx.data.AppendHex(nil)
		if err == nil && len(data) == 0 {
			err = errors.New("empty")
		}
		if err != nil {
			return fmt.Errorf("data: %w", err)
		}
		txs = append(txs, data)
		return nil
	})
	if err != nil {
		return 0, nil, fmt.Errorf("template: %w", err)
	}
	return height, txs, nil
}

// EmptyResponse returns the answer to getblocktemplate of a node that knows no transactions, with the terms of t: all
// but its transactions and LongPollID.
func EmptyResponse(t *Template) []byte {
	w := objectWriter{[]byte{'{'}}
	w.object("result")
	w.terms(t)
	w.texts("transactions", nil)
	w.end()
	return append(w.dst, `,"error":null,"id":"1"}`+"\n"...)
}

// answer is the result of an RPC response to getblocktemplate.
type answer struct {
	*fields
	transactions []transaction // one more than there may be, if there are more
}

// parseAnswer reads an RPC response. Its megabytes are gone over once.
func parseAnswer(response []byte) (*answer, error) {
	envelope, a := newFields(), new(answer)
	if _, err := walkObject(response, func(key jsonscan.Value, i, depth int) (end int) {
		if isKey(key, "result") {
			end = a.walk(response, i, depth)
		} else {
			end = jsonscan.Skip(response, i, depth)
		}
		if end >= 0 {
			envelope.add(key, response[i:end])
		}
		return end
	}); err != nil {
		return nil, err
	}
	if envelope.has("error") {
		return nil, fmt.Errorf("the node says %.200s", envelope.values["error"])
	}
	if !envelope.values["result"].IsObject() {
		return nil, fmt.Errorf("result: %w", errNotObject)
	}
	return a, nil
}

// walk passes the result of a response, which begins at i, as jsonscan.Skip does.
func (a *answer) walk(response []byte, i, depth int) (end int) {
	a.fields = newFields()
	return jsonscan.SkipEach(response, i, depth, func(key jsonscan.Value, i, depth int) (end int) {
		if isKey(key, "transactions") {
			end = a.walkTransactions(response, i, depth)
		} else {
			end = jsonscan.Skip(response, i, depth)
		}
		if end >= 0 {
			a.add(key, response[i:end])
		}
		return end
	})
}

func (a *answer) walkTransactions(response []byte, i, depth int) (end int) {
	a.transactions = nil
	return jsonscan.SkipEach(response, i, depth, func(_ jsonscan.Value, i, depth int) int {
		var tx transaction
		end := jsonscan.SkipEach(response, i, depth, func(key jsonscan.Value, i, depth int) int {
			end := jsonscan.Skip(response, i, depth)
			if end < 0 {
				return end
			}
			switch v := response[i:end]; string(key) {
			case `"data"`:
				tx.data = v
			case `"txid"`:
				tx.txid = v
			case `"hash"`:
				tx.hash = v
			case `"weight"`:
				tx.weight = v
			}
			return end
		})
		if len(a.transactions) <= maxTransactions {
			a.transactions = append(a.transactions, tx)
		}
		return end
	})
}

func parseTemplate(a *answer) (*Template, error) {
	t := parseTerms(a.fields)
	if a.err != nil {
		return nil, a.err
	}
	ids, err := parseTransactionIDs(a)
	if err != nil {
		return nil, err
	}
	t.Transactions, t.Weight, t.MerkleBranch = len(ids.txids), ids.weight, bitcoin.MerkleBranch(ids.txids)
	if t.WitnessCommitment == nil && ids.haveWitness {
		t.WitnessCommitment = bitcoin.WitnessCommitment(ids.wtxids)
	}
	return t, nil
}

// parseTerms reads all of a template but its transactions.
func parseTerms(f *fields) *Template {
	t := &Template{
		Height:        f.height("height"),
		PrevHash:      f.hash("previousblockhash"),
		Bits:          f.bits("bits"),
		CurTime:       uint32(f.unsigned("curtime", math.MaxUint32)),
		Version:       int32(f.integer("version", math.MinInt32, math.MaxInt32)),
		CoinbaseValue: f.integer("coinbasevalue", 0, btcutil.MaxSatoshi),
	}
	t.MinTime = t.CurTime
	if f.has("mintime") {
		t.MinTime = uint32(f.unsigned("mintime", math.MaxUint32))
	}
	if f.has("longpollid") {
		t.LongPollID = f.text("longpollid")
	}
	if f.has("coinbaseaux") {
		t.CoinbaseAux = f.coinbaseAux("coinbaseaux")
	}
	if f.has("rules") {
		t.Rules = f.rules("rules")
	}
	if f.has("default_witness_commitment") {
		t.WitnessCommitment = f.witnessCommitment("default_witness_commitment")
	}
	return t
}

// terms writes what parseTerms reads but the id of a long poll.
func (w *objectWriter) terms(t *Template) {
	w.integer("height", int64(t.Height))
	w.text("previousblockhash", t.PrevHash.String())
	w.text("bits", strconv.FormatUint(uint64(t.Bits), 16))
	w.unsigned("curtime", uint64(t.CurTime))
	w.unsigned("mintime", uint64(t.MinTime))
	w.integer("version", int64(t.Version))
	w.integer("coinbasevalue", t.CoinbaseValue)
	w.object("coinbaseaux")
	w.hex("flags", t.CoinbaseAux)
	w.end()
	w.texts("rules", t.Rules)
	if t.WitnessCommitment != nil {
		w.hex("default_witness_commitment", t.WitnessCommitment)
	}
}

func (f *fields) height(key string) int32 { return int32(f.integer(key, 1, math.MaxInt32)) }

// bits reads a compact target in hex.
func (f *fields) bits(key string) uint32 {
	bits, err := strconv.ParseUint(f.text(key), 16, 32)
	if err == nil {
		_, err = bitcoin.TargetFromBits(uint32(bits))
	}
	f.fail(key, err)
	return uint32(bits)
}

// coinbaseAux returns the concatenated values, in the order of their keys, of an object of hex strings; the keys mean
// nothing else (BIP 22).
func (f *fields) coinbaseAux(key string) []byte {
	var aux []byte
	list := f.object(key)
	for _, name := range slices.Sorted(maps.Keys(list.values)) {
		aux = append(aux, list.hex(name)...)
	}
	f.fail(key, list.err)
	return aux
}

// anyoneCanSign is the challenge of a signet whose blocks need no signature: OP_TRUE (BIP 325).
const anyoneCanSign = "51"

// rules reads the names of the rules in force. A pool that builds only what the template holds needs to understand no
// more than segwit's commitment; "!signet" is accepted for signets whose blocks need no signature.
func (f *fields) rules(key string) []string {
	if !f.values[key].IsArray() {
		f.fail(key, errNotArray)
		return nil
	}
	var rules []string
	for _, element := range f.values[key].Each() {
		rule, err := textOf(element)
		if name, must := strings.CutPrefix(rule, "!"); must && name != "segwit" && name != "signet" {
			err = fmt.Errorf("%.50q must be understood and is not", rule)
		}
		if rule == "!signet" && f.has("signet_challenge") && f.text("signet_challenge") != anyoneCanSign {
			err = fmt.Errorf("blocks of this signet must be signed (signet_challenge %.80q): it cannot be mined without its key", f.text("signet_challenge"))
		}
		if err != nil {
			f.fail(key, err)
			return nil
		}
		rules = append(rules, rule)
	}
	return rules
}

// witnessCommitment reads an output script, or the bare commitment that btcd gives in its place.
func (f *fields) witnessCommitment(key string) []byte {
	script := f.hex(key)
	if len(script) == chainhash.HashSize {
		return bitcoin.WitnessCommitmentScript(chainhash.Hash(script))
	}
	prefix := bitcoin.WitnessCommitmentScript(chainhash.Hash{})[:6]
	if len(script) < minCommitmentScript || !bytes.HasPrefix(script, prefix) {
		f.fail(key, errors.New("neither a commitment nor a script with one"))
	}
	return script
}

// transaction is one element of a template's transactions.
type transaction struct{ data, txid, hash, weight jsonscan.Value }

// check returns an error for a transaction that no block can be made of, as far as its length tells: its digits are
// megabytes, for whoever makes the block to read.
func (tx transaction) check() error {
	const quotes = 2
	switch {
	case !tx.data.IsString():
		return jsonscan.ErrNotString
	case len(tx.data) == quotes:
		return errors.New("empty")
	case len(tx.data)%2 != 0:
		return errors.New("not hex")
	}
	return nil
}

// eachTransaction calls visit for each of the template's transactions.
func (a *answer) eachTransaction(visit func(transaction) error) error {
	if !a.values["transactions"].IsArray() {
		return fmt.Errorf("transactions: %w", errNotArray)
	}
	for n, tx := range a.transactions {
		if n == maxTransactions {
			return fmt.Errorf("transactions: more than %d", maxTransactions)
		}
		if err := visit(tx); err != nil {
			return fmt.Errorf("transactions[%d]: %w", n, err)
		}
	}
	return nil
}

type transactionIDs struct {
	txids, wtxids []chainhash.Hash
	haveWitness   bool
	weight        int // the sum of all; 0 when one is unknown
}

// parseTransactionIDs takes the ids from the list, or computes them for nodes that give only one of the two.
func parseTransactionIDs(a *answer) (ids transactionIDs, err error) {
	weighed := true
	ids.txids = make([]chainhash.Hash, 0, len(a.transactions))
	ids.wtxids = make([]chainhash.Hash, 0, len(a.transactions))
	err = a.eachTransaction(func(tx transaction) error {
		var txid, wtxid chainhash.Hash
		err := tx.check()
		if err != nil {
			return fmt.Errorf("data: %w", err)
		}
		if tx.txid != nil && tx.hash != nil {
			if txid, err = hashOf(tx.txid); err != nil {
				return fmt.Errorf("txid: %w", err)
			}
			if wtxid, err = hashOf(tx.hash); err != nil {
				return fmt.Errorf("hash: %w", err)
			}
		} else if txid, wtxid, err = computeIDs(tx.data); err != nil {
			return fmt.Errorf("data: %w", err)
		}
		if weight, err := strconv.ParseUint(string(tx.weight), 10, 31); err == nil {
			ids.weight += int(weight)
		} else {
			weighed = false
		}
		ids.txids = append(ids.txids, txid)
		ids.wtxids = append(ids.wtxids, wtxid)
		ids.haveWitness = ids.haveWitness || txid != wtxid
		return nil
	})
	if !weighed {
		ids.weight = 0
	}
	return ids, err
}

func computeIDs(data jsonscan.Value) (txid, wtxid chainhash.Hash, err error) {
	raw, err := data.AppendHex(nil)
	if err != nil {
		return txid, wtxid, err
	}
	var tx wire.MsgTx
	r := bytes.NewReader(raw)
	if err := tx.Deserialize(r); err != nil {
		return txid, wtxid, err
	}
	if r.Len() != 0 {
		return txid, wtxid, fmt.Errorf("%d bytes after the transaction", r.Len())
	}
	return tx.TxHash(), tx.WitnessHash(), nil
}
