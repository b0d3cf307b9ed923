package main

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
)

// A stage is when a part stops: after what the stages before it have sent is taken in.
type stage int

const (
	producers stage = iota // make templates, and work of other chains
	servers                // make jobs of those, and shares
	consumers              // take in what servers send
	readers                // read what consumers keep
	base                   // all others stand on
	stageCount
)

// runStages runs every function of every stage at once until ctx ends or one of them fails. It then stops the stages in
// order, each only after the one before it has drained, so that whoever produces ends before whoever consumes, and both
// before what they stand on.
func runStages(ctx context.Context, stages ...[]func(context.Context) error) error {
	type running struct {
		stop context.CancelFunc
		wait func() error
	}
	// The stages outlive ctx: it only says when to begin stopping.
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var all []running
	for _, stage := range stages {
		own, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		var g errgroup.Group
		for _, run := range stage {
			g.Go(func() error {
				err := run(own)
				if own.Err() == nil { // nobody asked it to end
					fail(err)
				}
				return err
			})
		}
		all = append(all, running{stop, g.Wait})
	}
	<-ctx.Done()
	var errs []error
	for _, s := range all {
		s.stop()
		errs = append(errs, s.wait())
	}
	return errors.Join(errs...)
}
