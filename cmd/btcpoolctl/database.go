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

// database opens the database of the pool, whose schema it brings up to date as services do when they start.
func (p *pool) database(ctx context.Context) (*store.Store, string, error) {
	all, _ := ask(p, databaseOf)
	if len(all) == 0 {
		return nil, "", errNoDatabase
	}
	name, err := all[0].Name()
	if err != nil {
		return nil, "", err
	}
	db, err := all[0].Open(ctx)
	return db, name, err
}

// inDatabase makes a command of what works in the database.
func (t *tool) inDatabase(cmd *cobra.Command, do func(ctx context.Context, db *store.Store, args []string) error) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p, err := t.pool()
		if err != nil {
			return err
		}
		db, _, err := p.database(cmd.Context())
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		return do(cmd.Context(), db, args)
	}
	return cmd
}

func (t *tool) migrateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "migrate", Short: "Bring the database's schema up to date, as services do when they start", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := t.pool()
			if err != nil {
				return err
			}
			db, name, err := p.database(cmd.Context())
			if err != nil {
				return err
			}
			t.printf("%s has the schema of this version\n", name)
			return db.Close()
		},
	}
}

func (t *tool) usersCommand() *cobra.Command {
	list := t.inDatabase(&cobra.Command{Use: "list", Short: "Users and their ids", Args: exactly(0)},
		func(ctx context.Context, db *store.Store, _ []string) error {
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
		func(ctx context.Context, db *store.Store, args []string) error {
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
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p, err := t.pool()
		if err != nil {
			return err
		}
		db, _, err := p.database(cmd.Context())
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		nodes, err := p.nodeClients()
		if err != nil {
			return err
		}
		rows, err := db.Blocks(cmd.Context(), limit, 0)
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
					said, differs := onNode(cmd.Context(), node, b)
					fmt.Fprintf(w, "\t%s", said)
					if differs {
						wrong = errFound
					}
				}
				fmt.Fprintln(w)
			}
		})
		if wrong != nil {
			t.printf("What is marked with ! differs: blkmaker looks every minute; if it stays, ask blkmaker -verify.\n")
		}
		return wrong
	}
	return cmd
}

// onNode says where a node has a block, and whether its row says something else.
func onNode(ctx context.Context, node *noderpc.Client, b store.Block) (said string, differs bool) {
	is, err := node.Block(ctx, b.Hash)
	switch {
	case errors.Is(err, noderpc.ErrUnknownBlock):
		said, differs = "unknown", b.State == store.Accepted || b.State == store.Confirmed
	case err != nil:
		return "?", false
	case is.Confirmations > 0:
		said, differs = fmt.Sprintf("%d confirmations", is.Confirmations), b.State != store.Accepted && b.State != store.Confirmed
	default:
		said, differs = "beside the chain", b.State != store.Orphaned
	}
	if differs {
		said += " !"
	}
	return said, differs
}
