package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"btcpool/internal/bus"
	"btcpool/internal/durable"
)

// Topic is where records go. A receiver knows what it has seen by partition; so what is sent again has to go where it
// went before, though partitions were added to the topic meanwhile.
type Topic interface {
	// Partitions returns how many partitions the topic has.
	Partitions(ctx context.Context) (int, error)
	// Write appends msgs. Their keys choose among the first partitions, as many as that says; 0: among all.
	Write(ctx context.Context, partitions int, msgs ...bus.Message) error
}

// partitions returns among how many partitions the records of seg are spread: those of earlier openings among as many as
// then, which the file says that they have left, ours among as many as there are.
func (d *drainer) partitions(ctx context.Context, seg *segment) (int, error) {
	switch {
	case seg.earlier:
		return d.spreadBefore, nil
	case d.spread > 0:
		return d.spread, nil
	}
	n, err := d.topic.Partitions(ctx)
	if err != nil {
		return 0, err
	}
	if n != d.spreadBefore {
		// Nothing of before may be sent again from now on.
		if err = (position{seg.number, seg.sent}).write(d.position); err == nil {
			err = d.position.Sync()
		}
		if err == nil {
			err = durable.Replace(d.partitionsPath(), fmt.Appendln(nil, n), 0o644)
		}
		if err != nil {
			return 0, err
		}
	}
	d.spread = n
	return n, nil
}

// readPartitions finds out among how many partitions the records of earlier openings are spread. What cannot be read
// keeps nobody from sending: they are spread among all then.
func (s *Spool) readPartitions() error {
	text, err := os.ReadFile(s.partitionsPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 31)
	if err != nil {
		s.log.Warn().Err(err).Str("file", s.partitionsPath()).Msg("it is not known among how many partitions the spool's records were " +
			"spread: if partitions were added to the topic since, what is sent again may be counted twice")
		return nil
	}
	s.spreadBefore = int(n)
	return nil
}

func (s *Spool) partitionsPath() string { return filepath.Join(s.cfg.Dir, "partitions") }
