package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/spf13/cobra"

	"btcpool/internal/service"
)

// state is how a service is.
type state struct {
	part    part
	version string
	missing error // nil: ready
}

// states asks all services at once.
func (p *pool) states(ctx context.Context) []state {
	all := make([]state, len(p.parts))
	var asking sync.WaitGroup
	for i, part := range p.parts {
		all[i].part = part
		switch {
		case part.err != nil:
			all[i].missing = errors.New("its configuration is wrong, see check")
		default:
			asking.Go(func() {
				admin := part.config.Base().Admin
				all[i].missing = service.Health(ctx, admin)
				all[i].version = service.VersionAt(ctx, admin)
			})
		}
	}
	asking.Wait()
	return all
}

func (t *tool) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Ask each service how it is", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := t.pool()
			if err != nil {
				return err
			}
			var notReady error
			t.table(func(w io.Writer) {
				fmt.Fprintln(w, "SERVICE\tVERSION\tSTATE")
				for _, s := range p.states(cmd.Context()) {
					said := "ready"
					if s.missing != nil {
						said, notReady = s.missing.Error(), errFound
					}
					version := s.version
					if version == "" {
						version = "-"
					}
					fmt.Fprintf(w, "%s\t%s\t%s\n", s.part.name, version, said)
				}
			})
			return notReady
		},
	}
}
