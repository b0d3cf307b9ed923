// Command btcpoolctl is an operator's tool. It reads the configuration files of a pool's services as the services do, and
// from them knows where everything is: it checks the files together, asks each service how it is, and speaks to sserver's
// admin API, Kafka, the database and the nodes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"btcpool/internal/service"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1 // something is wrong, or could not be done
	exitUsage  = 2
)

// errFound says that what was wrong has been printed.
var errFound = errors.New("")

// tool is what commands have in common.
type tool struct {
	dir     string
	without []string
	out     io.Writer
	log     zerolog.Logger
}

func main() { os.Exit(do(os.Args[1:], os.Stdout, os.Stderr)) }

// do does what args say and returns the exit code.
func do(args []string, out, errs io.Writer) int {
	root := command(out, errs)
	root.SetArgs(args)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errFound):
		return exitFailed
	}
	fmt.Fprintln(errs, "btcpoolctl:", err)
	if _, usage := errors.AsType[usageError](err); usage {
		return exitUsage
	}
	return exitFailed
}

type usageError struct{ error }

// command returns the tree of commands.
func command(out, errs io.Writer) *cobra.Command {
	t := &tool{out: out, log: zerolog.New(zerolog.ConsoleWriter{Out: errs}).Level(zerolog.WarnLevel)}
	root := &cobra.Command{
		Use:   "btcpoolctl",
		Short: "Check, watch and steer a pool",
		Long: `btcpoolctl reads the configuration files of a pool's services, as the services do, and knows from them where everything is.
Files are called after their service, as sserver.toml; a second one has something behind that, as sserver-2.toml.
BTCPOOL_ variables of btcpoolctl's own environment go over the files, and over both those in <service>.env, which systemd gives the
service.`,
		Version:       service.Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(out)
	root.SetErr(errs)
	root.PersistentFlags().StringVarP(&t.dir, "configs", "C", "/etc/btcpool", "`folder` of the services' configuration files")
	root.PersistentFlags().StringSliceVarP(&t.without, "without", "x", nil, "`files` of services that are not used, like auxmaker,poolwatcher")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	for _, group := range [][]*cobra.Command{
		{t.checkCommand(), t.statusCommand(), t.doctorCommand()},
		{t.topicsCommand(), t.migrateCommand(), t.usersCommand()},
		{t.sessionsCommand(), t.bansCommand(), t.drainCommand()},
		{t.blocksCommand(), t.followCommand()},
	} {
		root.AddCommand(group...)
	}
	root.AddCommand(&cobra.Command{
		Use: "man FOLDER", Short: "Write manual pages into a folder", Args: exactly(1), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root.DisableAutoGenTag = true
			return doc.GenManTree(root, &doc.GenManHeader{Title: "BTCPOOLCTL", Section: "1", Source: "btcpool", Manual: "btcpool", Date: new(time.Unix(0, 0).UTC())}, args[0])
		},
	})
	return root
}

// exactly is cobra.ExactArgs with our exit code.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.ExactArgs(n)(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w: %s", err, cmd.UseLine())}
		}
		return nil
	}
}

// parent is a command that only has others.
func parent(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return usageError{fmt.Errorf("%s: say what: see %s --help", cmd.CommandPath(), cmd.CommandPath())}
	}}
	c.AddCommand(commands...)
	return c
}

// onPool makes a command of what works on the configurations of a pool.
func (t *tool) onPool(cmd *cobra.Command, do func(ctx context.Context, p *pool, args []string) error) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p, err := openPool(t.dir, t.without)
		if err != nil {
			return err
		}
		return do(cmd.Context(), p, args)
	}
	return cmd
}

func (t *tool) printf(format string, args ...any) { fmt.Fprintf(t.out, format, args...) }

// table prints rows whose cells end with tabs.
func (t *tool) table(fill func(w io.Writer)) {
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fill(w)
	_ = w.Flush()
}

// tell prints findings, and fails if there are any.
func (t *tool) tell(found []finding) error {
	for _, f := range found {
		t.printf("%s\n", f)
	}
	if len(found) > 0 {
		return errFound
	}
	return nil
}

func (t *tool) checkCommand() *cobra.Command {
	return t.onPool(&cobra.Command{
		Use: "check", Short: "Check all configuration files, and whether they fit together", Args: exactly(0),
		Long: `check reads every file as its service does with -check, and then holds them against each other: one network, one Kafka and
its topics, one database, one share log, folders, ports and server ids of each one's own, tokens of both sides, nodes that get blocks.
It takes the files of one folder for services of one machine.`,
	}, func(_ context.Context, p *pool, _ []string) error {
		if err := t.tell(p.faults()); err != nil {
			return err
		}
		t.printf("%d configurations are right, and fit together\n", len(p.parts))
		return nil
	})
}
