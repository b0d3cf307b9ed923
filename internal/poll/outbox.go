package poll

import (
	"time"

	"btcpool/internal/upgrade"
)

// Outbox keeps what a link has not taken yet. The zero value is empty.
//
// It knows neither link nor clock: its owner says when what waits must be taken, which is renewed whenever the peer has
// taken what waited at the time.
type Outbox struct{ waiting *backlog } // most are empty: a pointer is all they cost

type backlog struct {
	data []byte
	due  int // the first bytes of data must be taken
	by   time.Time
}

// Send has l write b behind what waits already, and keeps what it does not take until then by; b itself is not kept. It
// returns ErrSlow when more than limit bytes would wait. After an error the link is of no use for writing.
func (o *Outbox) Send(l Link, b []byte, limit int, by time.Time) error {
	if o.waiting == nil {
		n, err := l.Write(b)
		if err != nil {
			return err
		}
		if b = b[n:]; len(b) == 0 {
			return nil
		}
		o.waiting = &backlog{due: len(b), by: by}
	}
	if len(o.waiting.data)+len(b) > limit {
		return ErrSlow
	}
	o.waiting.data = append(o.waiting.data, b...)
	return nil
}

// Flush has l write what waits, as far as it can. The rest must be taken until then by, if the peer has taken what had
// to be so far.
func (o *Outbox) Flush(l Link, by time.Time) error {
	w := o.waiting
	if w == nil {
		return nil
	}
	n, err := l.Write(w.data)
	if err != nil {
		return err
	}
	if w.data = w.data[n:]; len(w.data) == 0 {
		o.waiting = nil
		return nil
	}
	if w.due -= n; w.due <= 0 {
		w.due, w.by = len(w.data), by
	}
	return nil
}

// Late reports whether the peer should have taken more by now.
func (o *Outbox) Late(now time.Time) bool { return o.waiting != nil && now.After(o.waiting.by) }

// Len returns how many bytes wait.
func (o *Outbox) Len() int {
	if o.waiting == nil {
		return 0
	}
	return len(o.waiting.data)
}

// Waiting returns what waits, of which the first due bytes must be taken until then by.
func (o *Outbox) Waiting() (data []byte, due int, by time.Time) {
	if o.waiting == nil {
		return nil, 0, time.Time{}
	}
	return o.waiting.data, o.waiting.due, o.waiting.by
}

// Restore has an empty Outbox hold what that of another process did, by its Waiting.
func (o *Outbox) Restore(data []byte, due int, by time.Time) {
	if len(data) > 0 {
		o.waiting = &backlog{data, min(max(due, 0), len(data)), by}
	}
}

// Code is for what waits, up to limit bytes, on its way to another process.
func (o *Outbox) Code(c *upgrade.Codec, limit int) {
	data, due, by := o.Waiting()
	c.Data(&data, limit)
	upgrade.Int(c, &due)
	c.Time(&by)
	if c.Reading() && c.Err() == nil {
		o.Restore(data, due, by)
	}
}
