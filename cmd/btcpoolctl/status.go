package main

import (
	"cmp"
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
		if part.err != nil {
			all[i].missing = errors.New("its configuration is wrong, see check")
			continue
		}
		asking.Go(func() {
			admin := part.config.Base().Admin
			all[i].missing = service.Health(ctx, admin)
			all[i].version = service.VersionAt(ctx, admin)
		})
	}
	asking.Wait()
	return all
}

func (t *tool) statusCommand() *cobra.Command {
	return t.onPool(&cobra.Command{Use: "status", Short: "Ask each service how it is", Args: exactly(0)},
		func(ctx context.Context, p *pool, _ []string) (notReady error) {
			t.table(func(w io.Writer) {
				fmt.Fprintln(w, "SERVICE\tVERSION\tSTATE")
				for _, s := range p.states(ctx) {
					said := "ready"
					if s.missing != nil {
						said, notReady = s.missing.Error(), errFound
					}
					fmt.Fprintf(w, "%s\t%s\t%s\n", s.part.name, cmp.Or(s.version, "-"), said)
				}
			})
			return notReady
		})
}
