//go:build integration

package rig

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// CompareBlocks says how found_blocks differs from the node's chain, which nobody else mines on: rows of what the node
// has forgotten may stay.
func CompareBlocks(ctx context.Context, conn *sql.DB, node *Btcd, forgotten map[string]bool) error {
	var tip int32
	if err := node.Call(ctx, "getblockcount", &tip); err != nil {
		return err
	}
	rows, err := conn.QueryContext(ctx, "SELECT hash, height, state FROM found_blocks")
	if err != nil {
		return err
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
			return err
		}
		if _, twice := found[hash]; twice {
			return fmt.Errorf("block %s has two rows", hash)
		}
		found[hash] = r
	}
	if err := rows.Err(); err != nil {
		return err
	}
	var without []string
	for height := int32(1); height <= tip; height++ {
		var hash string
		if err := node.Call(ctx, "getblockhash", &hash, height); err != nil {
			return err
		}
		r, ok := found[hash]
		if !ok || r.height != height || r.state != "accepted" && r.state != "confirmed" {
			without = append(without, fmt.Sprintf("%d %s %+v", height, hash, r))
		}
		delete(found, hash)
	}
	if len(without) > 0 {
		return fmt.Errorf("%d of the chain's %d blocks have no row that says so: %v", len(without), tip, without[:min(len(without), 5)])
	}
	for hash, r := range found {
		if r.state == "confirmed" && !forgotten[hash] || r.state == "accepted" && r.height < tip-6 {
			return errors.New("row of " + hash + " is not on the chain: " + fmt.Sprintf("%+v", r))
		}
	}
	return nil
}
