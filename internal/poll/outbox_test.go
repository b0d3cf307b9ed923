package poll_test

import (
	"errors"
	"testing"
	"time"

	"btcpool/internal/poll"
)

// narrow is a link that takes room bytes, and then nothing until it has room again.
type narrow struct {
	poll.Link
	room int
	got  string
	err  error
}

func (l *narrow) Write(b []byte) (int, error) {
	n := min(l.room, len(b))
	l.room -= n
	l.got += string(b[:n])
	return n, l.err
}

func TestOutbox(t *testing.T) {
	t.Parallel()
	const limit = 8
	now := time.Unix(1_700_000_000, 0)
	by := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	l := new(narrow)
	var o poll.Outbox
	var due time.Time // of what waits, zero when nothing does
	for i, step := range []struct {
		room int
		send string // "": flush
		by   int    // seconds
		want string // has arrived
		wait int    // bytes
		due  int    // seconds; 0: never
	}{
		{room: 4, send: "abc", by: 1, want: "abc"},
		{send: "def", by: 2, want: "abcd", wait: 2, due: 2},
		{send: "ghi", by: 3, want: "abcd", wait: 5, due: 2},         // does not help what waits already
		{room: 1, by: 4, want: "abcde", wait: 4, due: 2},            // nor does a part of it
		{room: 1, by: 5, want: "abcdef", wait: 3, due: 5},           // but all of it does
		{room: 2, by: 6, want: "abcdefgh", wait: 1, due: 5},         // what came later is due now
		{send: "1234567", by: 7, want: "abcdefgh", wait: 8, due: 5}, // as much as may wait
		{room: 9, by: 8, want: "abcdefghi1234567"},
		{by: 9, want: "abcdefghi1234567"},
	} {
		l.room += step.room
		var err error
		if step.send != "" {
			err = o.Send(l, []byte(step.send), limit, by(step.by))
		} else {
			err = o.Flush(l, by(step.by))
		}
		if err != nil || l.got != step.want || o.Len() != step.wait {
			t.Fatalf("step %d: %q has arrived, %d bytes wait, %v", i, l.got, o.Len(), err)
		}
		if due = by(step.due); step.due == 0 {
			due = by(1000)
		}
		if o.Late(due) || o.Late(due.Add(1)) == (step.due == 0) {
			t.Errorf("step %d: late %v, %v", i, o.Late(due), o.Late(due.Add(1)))
		}
	}
	l.room = 0
	if err := o.Send(l, make([]byte, limit+1), limit, now); !errors.Is(err, poll.ErrSlow) {
		t.Error(err)
	}
	l.err = errors.New("broken")
	o = poll.Outbox{}
	if err := o.Send(l, []byte("x"), limit, now); !errors.Is(err, l.err) {
		t.Error(err)
	}
	l.err = nil
	if err := o.Send(l, []byte("x"), limit, now); err != nil {
		t.Error(err)
	}
	l.err = errors.New("broken")
	if err := o.Flush(l, now); !errors.Is(err, l.err) {
		t.Error(err)
	}
}
