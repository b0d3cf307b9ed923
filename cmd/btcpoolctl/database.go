package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/store"
)

var errNoDatabase = errors.New("no service that has [database] is configured here")

// databaseConfig returns the section of the pool's database, and its name.
func (p *pool) databaseConfig() (store.Config, string, error) {
	all, _ := ask(p, databaseOf)
	if len(all) == 0 {
		return store.Config{}, "", errNoDatabase
	}
	name, err := all[0].Name()
	return all[0], name, err
}

// database opens the database of the pool, whose schema stays as it is: services of an older version may run.
func (p *pool) database(ctx context.Context) (db *store.Store, name string, err error) {
	cfg, name, err := p.databaseConfig()
	if err == nil {
		db, err = cfg.Look(ctx)
	}
	return db, name, err
}

// inDatabase makes a command of what works in the database.
func (t *tool) inDatabase(cmd *cobra.Command, do func(ctx context.Context, p *pool, db *store.Store, args []string) error) *cobra.Command {
	return t.onPool(cmd, func(ctx context.Context, p *pool, args []string) error {
		db, _, err := p.database(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		return do(ctx, p, db, args)
	})
}

func (t *tool) migrateCommand() *cobra.Command {
	return t.onPool(&cobra.Command{Use: "migrate", Short: "Bring the database's schema up to date, as services do when they start", Args: exactly(0)},
		func(ctx context.Context, p *pool, _ []string) error {
			cfg, name, err := p.databaseConfig()
			if err != nil {
				return err
			}
			db, err := cfg.Open(ctx)
			if err != nil {
				return err
			}
			t.printf("%s has the schema of this version\n", name)
			return db.Close()
		})
}

func (t *tool) usersCommand() *cobra.Command {
	list := t.inDatabase(&cobra.Command{Use: "list", Short: "Users and their ids", Args: exactly(0)},
		func(ctx context.Context, _ *pool, db *store.Store, _ []string) error {
			users, err := db.Users(ctx)
			if err != nil {
				return err
			}
			t.table(func(w io.Writer) {
				fmt.Fprintln(w, "ID\tUSER")
				for _, name := range slices.SortedFunc(maps.Keys(users), func(a, b string) int { return int(users[a]) - int(users[b]) }) {
					fmt.Fprintf(w, "%d\t%s\n", users[name], name)
				}
			})
			return nil
		})
	add := t.inDatabase(&cobra.Command{Use: "add NAME", Short: "Let somebody mine, where users are those in the database", Args: exactly(1)},
		func(ctx context.Context, _ *pool, db *store.Store, args []string) error {
			_, err := db.UserID(ctx, args[0], false)
			if err == nil {
				return fmt.Errorf("user %s is there already", args[0])
			}
			id, err := db.UserID(ctx, args[0], true)
			if err != nil {
				return err
			}
			t.printf("user %s has the id %d\n", args[0], id)
			return nil
		})
	return parent("users", "Users in the database", list, add)
}

// nodeClients returns clients of the nodes that blkmaker submits blocks to, or else of those that make templates.
func (p *pool) nodeClients() ([]*noderpc.Client, error) {
	templates, blocks := p.nodes()
	if len(blocks) == 0 {
		blocks = templates
	}
	if len(blocks) == 0 {
		return nil, errors.New("no service that has a node is configured here")
	}
	var all []*noderpc.Client
	for _, cfg := range blocks {
		c, err := noderpc.New(cfg)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func (t *tool) blocksCommand() *cobra.Command {
	limit := 20
	cmd := &cobra.Command{
		Use: "blocks", Short: "The newest blocks, as the database has them and as the nodes do", Args: exactly(0),
		Long: `blocks holds the rows of the newest blocks against each node. What is missing in the database because it was away or lost is
found by blkmaker -verify, which also mends it.`,
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "how many")
	return t.inDatabase(cmd, func(ctx context.Context, p *pool, db *store.Store, _ []string) error {
		nodes, err := p.nodeClients()
		if err != nil {
			return err
		}
		rows, err := db.Blocks(ctx, limit, 0)
		if err != nil {
			return err
		}
		var wrong error
		t.table(func(w io.Writer) {
			fmt.Fprint(w, "HEIGHT\tHASH\tFOUND\tBY\tROW")
			for i := range nodes {
				fmt.Fprintf(w, "\tNODE %d", i)
			}
			fmt.Fprintln(w)
			for _, b := range rows {
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s", b.Height, b.Hash, b.CreatedAt.UTC().Format(time.RFC3339), b.WorkerName, b.State)
				for _, node := range nodes {
					said, as := onNode(ctx, node, b.Hash)
					if as != nil && !slices.Contains(as, b.State) {
						said += " !"
						wrong = errFound
					}
					fmt.Fprintf(w, "\t%s", said)
				}
				fmt.Fprintln(w)
			}
		})
		if wrong != nil {
			t.printf("What is marked with ! differs: blkmaker looks every minute; if it stays, ask blkmaker -verify.\n")
		}
		return wrong
	})
}

// What onNode says of a block that is not there, and of a node that says nothing.
const (
	unknownToNode = "unknown"
	noAnswer      = "no answer"
)

// onNode says where a node has a block, and in which states its row says the same.
func onNode(ctx context.Context, node *noderpc.Client, hash string) (said string, as []store.BlockState) {
	is, err := node.Block(ctx, hash)
	switch {
	case errors.Is(err, noderpc.ErrUnknownBlock):
		return unknownToNode, []store.BlockState{store.Submitted, store.Orphaned, store.Rejected}
	case err != nil:
		return noAnswer, nil
	case is.Confirmations > 0:
		return fmt.Sprintf("%d confirmations", is.Confirmations), []store.BlockState{store.Accepted, store.Confirmed}
	}
	return "beside the chain", []store.BlockState{store.Orphaned}
}
