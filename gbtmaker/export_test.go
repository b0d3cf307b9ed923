package gbtmaker

import (
	"errors"

	"btcpool/internal/job"
)

// Keep leaves r in dir as a gbtmaker does that is killed before r is in its topic.
func Keep(dir string, r job.RawGBT) error {
	o, err := openOutbox(dir)
	if err != nil {
		return err
	}
	return errors.Join(o.put(r), o.close())
}

func (o *outbox) put(r job.RawGBT) error {
	if err := o.fill(r.Response); err != nil {
		return err
	}
	return o.seal(r)
}
