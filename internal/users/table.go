package users

import (
	"context"

	"btcpool/internal/store"
)

// pageRows is how many users are read from the database at a time.
const pageRows = 10_000

// table is the users' table in the database.
type table struct{ db *store.Store }

// list is directory.list.
func (t table) list(ctx context.Context, after int32) (map[string]int32, error) {
	return t.db.UsersAfter(ctx, after, pageRows)
}

// find is directory.find: it creates the user.
func (t table) find(ctx context.Context, name string) (int32, error) {
	return t.db.UserID(ctx, name, true)
}
