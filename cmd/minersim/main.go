// Minersim mines on a Stratum V1 pool with the CPU, on one connection or thousands, and reports what the pool made of it.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/miner"
	"btcpool/internal/retry"
	"btcpool/internal/service"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

const progressEvery = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

type options struct {
	miner    miner.Config
	duration time.Duration
	acks     string
	json     bool
	version  bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	o := options{miner: miner.Config{Agent: "minersim", VersionMask: 0x1fffe000}}
	cfg := &o.miner
	flags := flag.NewFlagSet("minersim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&cfg.URL, "url", "stratum+tcp://127.0.0.1:3333", "the pool; stratum+ssl:// for TLS")
	flags.Func("tls-ca", "certificates in this PEM `file` are trusted instead of the system's", func(file string) error {
		pem, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		cfg.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
		if !cfg.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return errors.New("no certificate in it")
		}
		return nil
	})
	flags.StringVar(&cfg.User, "user", "minersim.%d", "worker name; %d becomes the number of the connection")
	flags.StringVar(&cfg.Password, "password", "x", "password; pools read options from it")
	flags.IntVar(&cfg.Threads, "threads", 0, "threads that hash (0: one a CPU)")
	flags.IntVar(&cfg.Conns, "conns", 1, "connections")
	flags.DurationVar(&cfg.Ramp, "ramp", 0, "time over which the connections are opened")
	flags.Float64Var(&cfg.Rate, "rate", 0, "shares a second of each connection (0: as many as are found)")
	flags.DurationVar(&o.duration, "duration", 0, "stop after this time (0: never)")
	flags.Int64Var(&cfg.Shares, "shares", 0, "stop after so many accepted shares (0: never)")
	flags.TextVar(&cfg.Invalid, "invalid", miner.NoFault, "make shares `kind`: lowdiff, duplicate, badjob, badtime, malformed, oversized or mix")
	flags.BoolVar(&cfg.Reconnect, "reconnect", false, "connect again when a connection ends")
	flags.BoolVar(&cfg.AnyHost, "any-host", false, "follow client.reconnect to other hosts")
	flags.Func("version-mask", "version bits to ask for, 8 hex digits; 00000000 for none (default 1fffe000)", func(text string) error {
		b, err := hex.DecodeString(text)
		if err != nil || len(b) != 4 {
			return errors.New("not 8 hex digits")
		}
		cfg.VersionMask = binary.BigEndian.Uint32(b)
		return nil
	})
	flags.StringVar(&o.acks, "acks", "", "append a JSON line to this `file` for every share the pool accepted")
	flags.BoolVar(&o.json, "json", false, "write the result as JSON to the standard output")
	flags.BoolVar(&o.version, "version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if cfg.Conns < 1 {
		cfg.Conns = -1 // zero means the default to the miner, but a user who writes it is mistaken
	}
	err := cfg.Validate()
	if flags.NArg() > 0 {
		err = errors.Join(err, fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	if o.duration < 0 {
		err = errors.Join(err, fmt.Errorf("duration is %s, want 0 or more", o.duration))
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
	}
	return o, err
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitDone
	}
	if err != nil {
		return exitUsage
	}
	if o.version {
		fmt.Fprintln(stderr, "minersim", service.Version(), runtime.Version())
		return exitDone
	}
	fail := func(err error) int {
		fmt.Fprintln(stderr, "minersim:", err)
		return exitFailed
	}

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	if o.acks != "" {
		acks, err := openAcks(o.acks, stop)
		if err != nil {
			return fail(err)
		}
		defer acks.file.Close()
		o.miner.OnShare = acks.record
	}
	log := zerolog.New(zerolog.ConsoleWriter{Out: stderr, TimeFormat: time.TimeOnly, NoColor: true}).With().Timestamp().Logger()
	m, err := miner.New(o.miner, log)
	if err != nil {
		return fail(err)
	}

	running, ended := context.WithCancel(context.Background())
	var progress sync.WaitGroup
	progress.Go(func() { printProgress(running, stderr, m) })
	err = m.Run(ctx)
	ended()
	progress.Wait()

	report := m.Report()
	if o.json {
		out := json.NewEncoder(stdout)
		out.SetIndent("", "  ")
		err = errors.Join(err, out.Encode(report))
	} else {
		_, writeErr := io.WriteString(stdout, summary(&report))
		err = errors.Join(err, writeErr)
	}
	switch {
	case err != nil:
		return fail(err)
	case errors.Is(context.Cause(ctx), errAcks):
		return fail(context.Cause(ctx))
	case report.Authorized == 0:
		return fail(errors.New("no connection was authorized"))
	case report.Accepted < o.miner.Shares:
		return fail(fmt.Errorf("%d of %d shares accepted", report.Accepted, o.miner.Shares))
	}
	return exitDone
}

func printProgress(ctx context.Context, w io.Writer, m *miner.Miner) {
	for retry.Sleep(ctx, progressEvery) {
		r := m.Report()
		fmt.Fprintf(w, "%.0f s: %d of %d connections, %d accepted, %d rejected, %d unanswered, %s\n",
			r.Seconds, r.Open, r.Connections, r.Accepted, r.Rejected, r.Unanswered, miner.FormatHashrate(r.Hashrate))
		if r.Problem != "" {
			fmt.Fprintln(w, r.Problem)
		}
	}
}

func summary(r *miner.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s for %.1f s: %d connections asked for, %d sessions authorized, %d reconnects\n",
		r.URL, r.Seconds, r.Connections, r.Authorized, r.Reconnects)
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "  %6d × %s\n", f.Count, f.Text)
	}
	fmt.Fprintf(&b, "shares: %d submitted, %d accepted, %d rejected, %d unanswered\n", r.Submitted, r.Accepted, r.Rejected, r.Unanswered)
	for _, c := range r.RejectedBy {
		fmt.Fprintf(&b, "  %6d × %d %s\n", c.Count, c.Code, c.Text)
	}
	if r.InvalidAccepted > 0 {
		fmt.Fprintf(&b, "INVALID SHARES ACCEPTED: %d\n", r.InvalidAccepted)
	}
	if r.Problem != "" {
		fmt.Fprintln(&b, r.Problem)
	}
	fmt.Fprintf(&b, "hashrate %s on %d threads, difficulty %g\n", miner.FormatHashrate(r.Hashrate), r.Threads, r.Difficulty)
	fmt.Fprintf(&b, "bytes: %d in, %d out\n", r.BytesIn, r.BytesOut)
	fmt.Fprintf(&b, "%-10s %9s %10s %10s %10s %10s\n", "ms", "count", "p50", "p90", "p99", "max")
	for _, row := range []struct {
		name string
		p    miner.Percentiles
	}{
		{"connect", r.Latency.Connect},
		{"subscribe", r.Latency.Subscribe},
		{"authorize", r.Latency.Authorize},
		{"notify", r.Latency.Notify},
		{"submit", r.Latency.Submit},
	} {
		fmt.Fprintf(&b, "%-10s %9d %10.3f %10.3f %10.3f %10.3f\n", row.name, row.p.Count, row.p.P50, row.p.P90, row.p.P99, row.p.Max)
	}
	return b.String()
}
