package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"btcpool/internal/bus"
	"btcpool/internal/sealed"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/store"
	"btcpool/sharelogger"
)

func (t *tool) followCommand() *cobra.Command {
	var wanted struct {
		session, nonce, id string
		since              time.Duration
	}
	shares := &cobra.Command{
		Use: "share", Short: "Where a share is: in Kafka, in the share log, in the tables", Args: exactly(0),
		Long: `share looks for shares by what a miner knows of them, the session's id (its extranonce1) and the nonce, or by the id that
they have inside the pool: server-epoch-sequence. It reads the topic from the time --since on, and the share log's days from then on.`,
	}
	flags := shares.Flags()
	flags.StringVar(&wanted.session, "session", "", "eight hex `digits`")
	flags.StringVar(&wanted.nonce, "nonce", "", "eight hex `digits`, as the miner has sent them")
	flags.StringVar(&wanted.id, "id", "", "server-epoch-sequence, like 1-3-77")
	flags.DurationVar(&wanted.since, "since", time.Hour, "how long ago it came at most")
	t.onPool(shares, func(ctx context.Context, p *pool, _ []string) error {
		match, err := matcher(wanted.session, wanted.nonce, wanted.id)
		if err != nil {
			return usageError{err}
		}
		return t.followShares(ctx, p, match, time.Now().Add(-wanted.since))
	})
	return parent("follow", "Follow a share or a block through the pool", shares, t.followBlockCommand())
}

// matcher returns what tells the wanted shares from all others.
func matcher(session, nonce, id string) (func(*share.Share) bool, error) {
	var tests []func(*share.Share) bool
	for _, of := range []struct {
		flag, text string
		get        func(*share.Share) uint32
	}{
		{"session", session, func(s *share.Share) uint32 { return s.SessionID }},
		{"nonce", nonce, func(s *share.Share) uint32 { return s.Nonce }},
	} {
		if of.text == "" {
			continue
		}
		want, err := strconv.ParseUint(of.text, 16, 32)
		if err != nil {
			return nil, fmt.Errorf("--%s %s: must be hex digits, at most eight", of.flag, of.text)
		}
		tests = append(tests, func(s *share.Share) bool { return of.get(s) == uint32(want) })
	}
	if id != "" {
		want, err := parseID(id)
		if err != nil {
			return nil, err
		}
		tests = append(tests, func(s *share.Share) bool { return s.ID == want })
	}
	if len(tests) == 0 {
		return nil, errors.New("say which: --session and --nonce, or --id")
	}
	return func(s *share.Share) bool {
		for _, is := range tests {
			if !is(s) {
				return false
			}
		}
		return true
	}, nil
}

func parseID(text string) (id share.ID, err error) {
	parts := strings.Split(text, "-")
	if len(parts) != 3 {
		return id, fmt.Errorf("--id %s: must be server-epoch-sequence, like 1-3-77", text)
	}
	server, errServer := strconv.ParseUint(parts[0], 10, 8)
	epoch, errEpoch := strconv.ParseUint(parts[1], 10, 32)
	seq, errSeq := strconv.ParseUint(parts[2], 10, 64)
	if err := errors.Join(errServer, errEpoch, errSeq); err != nil {
		return id, fmt.Errorf("--id %s: must be server-epoch-sequence, like 1-3-77", text)
	}
	return share.ID{Server: uint8(server), Epoch: uint32(epoch), Seq: seq}, nil
}

func (t *tool) followShares(ctx context.Context, p *pool, match func(*share.Share) bool, since time.Time) error {
	found := 0
	var hours []store.StatsKey
	see := func(where string, s *share.Share) {
		found++
		t.printf("%s: share %d-%d-%d of user %d, worker %d, %s, difficulty %s, job %d, height %d, at %s\n", where,
			s.ID.Server, s.ID.Epoch, s.ID.Seq, s.UserID, s.WorkerID, s.Status.Text(), s.Difficulty, s.JobID, s.Height,
			time.Unix(s.Time, 0).UTC().Format(time.RFC3339))
		hours = append(hours, store.StatsKey{UserID: s.UserID, WorkerID: s.WorkerID, Period: store.Hour.Period(time.Unix(s.Time, 0))})
	}
	if err := t.inTopic(ctx, p, match, since, see); err != nil {
		t.printf("Kafka: %v\n", err)
	}
	loggers, _ := configs[sharelogger.Config](p)
	for _, logger := range loggers {
		for _, l := range logger.PerChain() {
			if err := inLog(ctx, l, match, since, see); err != nil {
				t.printf("share log of %s in %s: %v\n", l.Chain, l.DataDir, err)
			}
		}
	}
	if found == 0 {
		t.printf("no such share\n")
		return errFound
	}
	db, name, err := p.database(ctx)
	if err != nil {
		t.printf("tables: %v\n", err)
		return nil
	}
	defer func() { _ = db.Close() }()
	key := hours[len(hours)-1]
	rows, err := db.ReadStats(ctx, store.Hour, key.UserID, key.WorkerID, key.Period, key.Period)
	switch {
	case err != nil:
		t.printf("tables: %v\n", err)
	case len(rows) == 0:
		t.printf("%s: the worker has no row of the hour %d yet\n", name, key.Period)
	default:
		t.printf("%s: the worker's row of the hour %d has %s hashes accepted, %s refused, %s stale\n", name, key.Period, rows[0].Accept, rows[0].Reject, rows[0].Stale)
	}
	return nil
}

// errEnd says that a topic was read to its end.
var errEnd = errors.New("the end")

func (t *tool) inTopic(ctx context.Context, p *pool, match func(*share.Share) bool, since time.Time, see func(string, *share.Share)) error {
	client, err := t.kafka(p)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	if err := client.Ping(ctx); err != nil {
		return err
	}
	var errs []error
	for _, topic := range p.shareTopics() {
		errs = append(errs, inOneTopic(ctx, client, topic, match, since, see))
	}
	return errors.Join(errs...)
}

// shareTopics returns those of all chains.
func (p *pool) shareTopics() (names []string) {
	for _, part := range p.only("sserver", "sharelogger", "statshttpd").parts {
		if part.err != nil {
			continue
		}
		for _, of := range topicsOf(part.config) {
			names = append(names, of.Share)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func inOneTopic(ctx context.Context, client *bus.Client, topic string, match func(*share.Share) bool, since time.Time, see func(string, *share.Share)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := client.Read(ctx, topic, bus.Since(since, 0), func(m bus.Message) error {
		var s share.Share
		if s.Parse(m.Value) == nil && match(&s) {
			see(fmt.Sprintf("%s, partition %d, offset %d", topic, m.Partition, m.Offset), &s)
		}
		return nil
	}, bus.CaughtUp(func() { cancel(errEnd) }))
	if errors.Is(context.Cause(ctx), errEnd) {
		return nil
	}
	return err
}

func inLog(ctx context.Context, l sharelogger.Config, match func(*share.Share) bool, since time.Time, see func(string, *share.Share)) error {
	for day := sharefile.DayOf(since.Unix()); day <= sharefile.DayOf(time.Now().Unix()); day = day.Next() {
		if err := inDay(ctx, l, day, match, see); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("day %d: %w", day, err)
		}
	}
	return nil
}

func inDay(ctx context.Context, l sharelogger.Config, day sharefile.Day, match func(*share.Share) bool, see func(string, *share.Share)) (err error) {
	d, err := sealed.OpenDay(l.DataDir, l.Chain, day)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	for ctx.Err() == nil {
		batch, err := d.NextBatch()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // what is being written
			return nil
		}
		if err != nil {
			return err
		}
		for len(batch) > 0 {
			var record []byte
			record, batch = sharefile.CutRecord(batch)
			var s share.Share
			if s.ParseBody(record) == nil && match(&s) {
				see(fmt.Sprintf("share log of %s, day %d", l.Chain, day), &s)
			}
		}
	}
	return ctx.Err()
}

func (t *tool) followBlockCommand() *cobra.Command {
	return t.inDatabase(&cobra.Command{Use: "block HASH", Short: "Where a block is: in the database and on each node", Args: exactly(1)},
		func(ctx context.Context, p *pool, db *store.Store, args []string) error {
			hash := strings.ToLower(args[0])
			row, missing := db.Block(ctx, hash)
			switch {
			case errors.Is(missing, store.ErrNotFound):
				t.printf("database: no row\n")
			case missing != nil:
				return missing
			default:
				t.printf("database: height %d, %s, found by %s at %s with job %d, %d satoshi, %d bytes\n", row.Height, row.State,
					row.WorkerName, row.CreatedAt.UTC().Format(time.RFC3339), row.JobID, row.RewardSat, row.Size)
				if row.SubPool != "" {
					t.printf("for the sub-pool %s\n", row.SubPool)
				}
			}
			nodes, err := p.nodeClients()
			if err != nil {
				return err
			}
			known := false
			for _, node := range nodes {
				said, _ := onNode(ctx, node, hash)
				known = known || said != unknownToNode && said != noAnswer
				t.printf("%s: %s\n", node.URL(), said)
			}
			if missing == nil {
				return nil
			}
			if known {
				t.printf("The nodes have it and the database has not: blkmaker -verify -mend writes the row if the block is ours.\n")
			}
			return errFound
		})
}
