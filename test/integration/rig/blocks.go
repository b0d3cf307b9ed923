//go:build integration

package rig

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/auxpow/auxpowtest"
	"btcpool/internal/bitcoin/noderpc"
)

// CompareBlocks says how found_blocks differs from the chain of a node where nobody else mines. Blocks that the node
// has forgotten may be confirmed all the same. It returns how many blocks the chain has.
func CompareBlocks(ctx context.Context, conn *sql.DB, node *noderpc.Client, forgotten map[string]bool) (tip int32, err error) {
	if err := node.Call(ctx, "getblockcount", &tip); err != nil {
		return 0, err
	}
	rows, err := conn.QueryContext(ctx, "SELECT hash, height, state FROM found_blocks")
	if err != nil {
		return tip, err
	}
	defer func() { _ = rows.Close() }() // what went wrong, Err says
	type row struct {
		height int32
		state  string
	}
	found := map[string]row{}
	for rows.Next() {
		var hash string
		var r row
		if err := rows.Scan(&hash, &r.height, &r.state); err != nil {
			return tip, err
		}
		if _, twice := found[hash]; twice {
			return tip, fmt.Errorf("block %s has two rows", hash)
		}
		found[hash] = r
	}
	if err := rows.Err(); err != nil {
		return tip, err
	}
	var without []string
	for height := int32(1); height <= tip; height++ {
		var hash string
		if err := node.Call(ctx, "getblockhash", &hash, height); err != nil {
			return tip, err
		}
		r, ok := found[hash]
		if !ok || r.height != height || r.state != "accepted" && r.state != "confirmed" {
			without = append(without, fmt.Sprintf("%d %s %+v", height, hash, r))
		}
		delete(found, hash)
	}
	if len(without) > 0 {
		return tip, fmt.Errorf("%d of the chain's %d blocks have no row that says so: %v", len(without), tip, without[:min(len(without), 5)])
	}
	for hash, r := range found {
		if r.state == "confirmed" && !forgotten[hash] || r.state == "accepted" && r.height < tip-6 {
			return tip, errors.New("row of " + hash + " is not on the chain: " + fmt.Sprintf("%+v", r))
		}
	}
	return tip, nil
}

// CompareMerged says how found_nmc_blocks differs from what the node of the other chain, "aux", has taken.
func CompareMerged(ctx context.Context, conn *sql.DB, aux *auxpowtest.Node) error {
	rows, err := conn.QueryContext(ctx, "SELECT aux_block_hash FROM found_nmc_blocks WHERE state IN ('accepted', 'confirmed') AND chain_name = 'aux'")
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // what went wrong, Err says
	var got []string
	for rows.Next() {
		var hash string
		if err := rows.Scan(&hash); err != nil {
			return err
		}
		got = append(got, hash)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	want := aux.Accepted()
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		return errors.New(diff)
	}
	return nil
}
