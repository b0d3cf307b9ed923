package dialogues_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"

	"btcpool/internal/testkit"
)

// event is what stands behind a !. What is not given is zero.
type event struct {
	jobs []string
	jobSize
	line, later  int // bytes, seconds
	nonce2, bits string
	below        float64
}

// parse reads options, each key=value, and what is none for a job.
func (e *event) parse(options []string) error {
	places := map[string]any{
		"branches": &e.branches, "coinbase": &e.coinbase, "line": &e.line,
		"time": &e.later, "nonce2": &e.nonce2, "bits": &e.bits, "below": &e.below,
	}
	for _, option := range options {
		key, value, ok := strings.Cut(option, "=")
		if !ok {
			e.jobs = append(e.jobs, option)
			continue
		}
		place, known := places[key]
		if !known {
			return fmt.Errorf("%s: no option", option)
		}
		if _, err := fmt.Sscan(value, place); err != nil {
			return fmt.Errorf("%s: %w", option, err)
		}
	}
	return nil
}

func (d *dialogue) happen(fields []string) error {
	var e event
	if err := e.parse(fields[1:]); err != nil {
		return err
	}
	switch fields[0] {
	case "job":
		d.pool.publish(e.jobSize)
	case "block":
		d.pool.newBlock()
		d.pool.publish(e.jobSize)
	case "share":
		return d.share(e)
	case "differ":
		return d.differ(e)
	case "reconnect":
		d.conn.Close()
		testkit.Eventually(d.pool.t, "the end of the connection", func() bool { return d.pool.connections() == 0 })
		d.dial()
	case "silence":
		return d.silence()
	case "limit":
		return d.limit(e)
	default:
		return errors.New("not known to happen")
	}
	return nil
}

// share finds one for a job: of its difficulty, or with below one that is easier than that, and if it can be, of the
// job's.
func (d *dialogue) share(e event) error {
	works, err := d.works(e.jobs, 1)
	if err != nil {
		return err
	}
	w := works[0]
	low, high := w.difficulty, math.Inf(1)
	if e.below > 0 {
		high = e.below
		if high <= low {
			low = 0
		}
	}
	time, nonce, err := w.mine(e.nonce2, e.bits, e.later, low, high)
	if err != nil {
		return err
	}
	d.words["time"] = fmt.Sprintf("%08x", time)
	d.words["nonce"] = fmt.Sprintf("%08x", nonce)
	d.words["NONCE"] = fmt.Sprintf("%08X", nonce)
	d.words["n"] = fmt.Sprintf("%x", nonce)
	return nil
}

// differ reports two jobs whose coinbase and header are the same.
func (d *dialogue) differ(e event) error {
	works, err := d.works(e.jobs, 2)
	if err != nil {
		return err
	}
	a, b := works[0], works[1]
	a.id, a.clean, a.difficulty = b.id, b.clean, b.difficulty
	if reflect.DeepEqual(a, b) {
		return fmt.Errorf("jobs %s are the same work", strings.Join(e.jobs, " and "))
	}
	return nil
}

// works returns n jobs by their ids.
func (d *dialogue) works(ids []string, n int) ([]work, error) {
	if len(ids) != n {
		return nil, fmt.Errorf("%d jobs are named, not %d", len(ids), n)
	}
	works := make([]work, n)
	for i, id := range ids {
		w, known := d.jobs[id]
		if !known {
			return nil, fmt.Errorf("no job %q", id)
		}
		works[i] = w
	}
	return works, nil
}

// limit reports what was larger than firmware has room for.
func (d *dialogue) limit(e event) error {
	if e.line > 0 && d.longest > e.line {
		return fmt.Errorf("a line had %d bytes", d.longest)
	}
	for id, w := range d.jobs {
		if size := w.coinbaseSize(); e.coinbase > 0 && size > e.coinbase {
			return fmt.Errorf("job %s has a coinbase of %d bytes", id, size)
		}
		if e.branches > 0 && len(w.branch) > e.branches {
			return fmt.Errorf("job %s has %d branches", id, len(w.branch))
		}
	}
	return nil
}
