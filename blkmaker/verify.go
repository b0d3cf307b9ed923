package blkmaker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/btcsuite/btcd/wire/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

// A claim is a block that is ours by what data_dir or the chain says.
type claim struct {
	row  store.Block // what the database should have, but for the state
	made bool        // it was submitted
	by   string      // who found it, or how it is known without that
}

// audit compares the database with what data_dir remembers and what is on the chain of the best node.
type audit struct {
	*Service
	out    io.Writer
	node   *node
	tip    int32
	claims map[string]*claim            // by hash
	merged map[string]store.MergedBlock // by hash
	rows   map[string]store.Block       // of found_blocks, by hash
	others map[string]store.MergedBlock // of found_nmc_blocks, by hash
	wrong  int                          // differences that stay
}

// verify prints what differs. It mends that when Config.Mend says so, and fails if differences remain.
func (s *Service) verify(ctx context.Context, out io.Writer) error {
	a := &audit{
		Service: s, out: out,
		claims: make(map[string]*claim),
		merged: make(map[string]store.MergedBlock),
		rows:   make(map[string]store.Block),
		others: make(map[string]store.MergedBlock),
	}
	for _, step := range []func(context.Context) error{a.askNodes, a.readRows, a.readJournal, a.readFiles, a.readChain, a.compare, a.compareMerged} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "found_blocks has %d rows, data_dir and the chain up to block %d know %d blocks; found_nmc_blocks has %d, data_dir %d\n",
		len(a.rows), a.tip, len(a.claims), len(a.others), len(a.merged))
	if a.wrong > 0 {
		return fmt.Errorf("%d differences", a.wrong)
	}
	return nil
}

// askNodes chooses the best node.
func (a *audit) askNodes(ctx context.Context) (err error) {
	var errs []error
	for _, n := range a.nodes {
		state := a.ask(ctx, n)
		if state.err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", n.label, state.err))
		}
		n.state.Store(state)
	}
	if a.node, a.tip = a.best(); a.node == nil {
		return errors.Join(errs...)
	}
	return nil
}

func (a *audit) readRows(ctx context.Context) error {
	if err := a.connect(ctx); err != nil {
		return err
	}
	const atOnce = 1000
	for {
		rows, err := a.store.Blocks(ctx, atOnce, len(a.rows))
		if err != nil {
			return err
		}
		for _, b := range rows {
			a.rows[b.Hash] = b
		}
		if len(rows) < atOnce {
			break
		}
	}
	others, err := a.store.MergedBlocks(ctx, math.MaxInt32, 0)
	for _, b := range others {
		a.others[b.Hash] = b
	}
	return err
}

// readJournal claims what the journal remembers: the blkmaker that writes it may run.
func (a *audit) readJournal(context.Context) error {
	content, err := os.ReadFile(filepath.Join(a.cfg.DataDir, "journal"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	shares := make(map[solvedKey]*taken)
	for e := range events(content, a.log) {
		t := shares[e.solvedKey]
		switch {
		case e.Event == eventTaken:
			shares[e.solvedKey] = &taken{solvedKey: e.solvedKey, message: e.Message, sent: e.Sent}
		case t != nil:
			t.made = e.update(t.made)
		}
	}
	for key, t := range shares {
		if t.made != nil {
			for _, b := range t.made.Merged {
				a.merged[b.Hash] = b.row(key, t.sent)
			}
		}
		if key.Kind != kindBlock {
			continue
		}
		solved, err := share.ParseSolved(t.message)
		if err != nil {
			continue
		}
		b, _, err := bare(&solved)
		if err != nil {
			continue
		}
		if t.made != nil {
			b.size, b.subPool = t.made.Size, t.made.SubPool
		}
		a.claims[b.hash.String()] = &claim{row(&solved, b, t.sent), t.made != nil, "found by " + solved.WorkerName}
	}
	return nil
}

// readFiles claims the blocks that are kept.
func (a *audit) readFiles(context.Context) error {
	names, err := filepath.Glob(filepath.Join(string(a.archive), "*.hex"))
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		raw, err := hex.DecodeString(string(text))
		if err != nil {
			continue
		}
		a.claimRaw(raw, "kept in "+name)
	}
	return nil
}

// readChain claims the blocks of the chain that have Config.Mark in their coinbase.
func (a *audit) readChain(ctx context.Context) error {
	if a.cfg.Mark == "" {
		return nil
	}
	script, err := a.network.PayoutScript(a.cfg.Mark)
	if err != nil {
		script = nil // a text
	}
	for height := int32(a.cfg.Since); height <= a.tip; height++ {
		var hash, text string
		if err := a.node.client.Call(ctx, "getblockhash", &hash, height); err != nil {
			return err
		}
		if _, ok := a.rows[hash]; ok || a.claims[hash] != nil {
			continue
		}
		if err := a.node.client.Call(ctx, "getblock", &text, hash, 0); err != nil {
			return err
		}
		raw, err := hex.DecodeString(text)
		if err != nil {
			return fmt.Errorf("block %s: %w", hash, err)
		}
		_, coinbase, err := opened(raw)
		if err != nil {
			return fmt.Errorf("block %s: %w", hash, err)
		}
		if marked(coinbase, a.cfg.Mark, script) {
			a.claimRaw(raw, "known by its coinbase only")
		}
	}
	return nil
}

// marked reports whether a coinbase pays script or, without one, has text in it.
func marked(coinbase *wire.MsgTx, text string, script []byte) bool {
	if script == nil {
		return bytes.Contains(coinbase.TxIn[0].SignatureScript, []byte(text))
	}
	return slices.ContainsFunc(coinbase.TxOut, func(out *wire.TxOut) bool { return bytes.Equal(out.PkScript, script) })
}

// opened returns header and coinbase of a block.
func opened(raw []byte) (header wire.BlockHeader, coinbase *wire.MsgTx, err error) {
	r := bytes.NewReader(raw)
	coinbase = new(wire.MsgTx)
	if err = header.Deserialize(r); err == nil {
		_, err = wire.ReadVarInt(r, 0)
	}
	if err == nil {
		err = coinbase.Deserialize(r)
	}
	if err == nil && len(coinbase.TxIn) != 1 {
		err = errors.New("its first transaction is no coinbase")
	}
	return header, coinbase, err
}

// claimRaw claims a block of which nobody says who found it, unless it is claimed already.
func (a *audit) claimRaw(raw []byte, by string) {
	header, coinbase, err := opened(raw)
	if err != nil {
		return
	}
	hash := header.BlockHash().String()
	if c := a.claims[hash]; c != nil {
		c.made, c.row.Size = true, len(raw)
		return
	}
	var legacy bytes.Buffer
	_ = coinbase.SerializeNoWitness(&legacy) // memory takes it
	height, err := bitcoin.CoinbaseHeight(legacy.Bytes())
	if err != nil {
		return
	}
	c := &claim{made: true, by: by, row: store.Block{
		Height: height, Hash: hash, Size: len(raw), PrevHash: header.PrevBlock.String(), Bits: header.Bits, Version: header.Version,
		CreatedAt: header.Timestamp,
	}}
	for _, out := range coinbase.TxOut {
		c.row.RewardSat += out.Value
	}
	a.claims[hash] = c
}

// compare looks for claims without a row, and for rows whose state is not what the chain says.
func (a *audit) compare(ctx context.Context) error {
	blocks := slices.Collect(maps.Values(a.rows))
	for hash, c := range a.claims {
		if _, ok := a.rows[hash]; !ok {
			blocks = append(blocks, c.row)
		}
	}
	slices.SortFunc(blocks, func(b, c store.Block) int {
		return cmp.Or(cmp.Compare(b.Height, c.Height), strings.Compare(b.Hash, c.Hash))
	})
	for _, b := range blocks {
		where, err := a.node.locate(ctx, b.Hash)
		if err != nil {
			return err
		}
		_, there := a.rows[b.Hash]
		c := a.claims[b.Hash]
		onChain := where != nil && where.Confirmations > 0
		if !there && !c.made && !onChain {
			continue // nothing came of it
		}
		was := b.State
		b.State, b.Confirmations = follow(b.State, b.Confirmations, where, a.tip < b.Height+buriedBy, int64(a.cfg.Confirmations))
		switch {
		case !there:
			b.State = cmp.Or(b.State, store.Submitted)
			a.differs(b, fmt.Sprintf("no row, is %s, %s", b.State, c.by), c.row.WorkerName != "", func() error { return a.store.AddBlock(ctx, b) })
		case good(b.State) != good(was):
			a.differs(b, fmt.Sprintf("row says %s, is %s", was, b.State), true, func() error {
				return a.store.SetBlockState(ctx, b.Hash, b.State, b.Confirmations)
			})
		}
	}
	return nil
}

// good reports whether a state means that the block is on the chain, or was when it was last looked at.
func good(state store.BlockState) bool { return state == store.Accepted || state == store.Confirmed }

// differs prints a difference, and mends it if that can and may be done.
func (a *audit) differs(b store.Block, what string, can bool, mend func() error) {
	switch {
	case !a.cfg.Mend:
	case !can:
		what += ": not mended, as nobody here knows who found it"
	default:
		if err := mend(); err != nil {
			what += ": " + err.Error()
			break
		}
		fmt.Fprintf(a.out, "%d %s %s: mended\n", b.Height, b.Hash, what)
		return
	}
	a.wrong++
	fmt.Fprintf(a.out, "%d %s %s\n", b.Height, b.Hash, what)
}

// compareMerged looks for blocks of other chains without a row. What became of them is their follower's business.
func (a *audit) compareMerged(ctx context.Context) error {
	for _, hash := range slices.Sorted(maps.Keys(a.merged)) {
		if _, ok := a.others[hash]; ok {
			continue
		}
		b := a.merged[hash]
		what := fmt.Sprintf("of %s has no row, was %s", b.Chain, b.State)
		a.differs(store.Block{Hash: hash}, what, true, func() error { return a.store.AddMergedBlock(ctx, b) })
	}
	return nil
}
