package spool

import (
	"slices"
	"time"
)

// ages knows roughly since when records have been waiting: one mark a second, and fewer the more there are.
type ages []mark

type mark struct {
	from position // records from here to the next mark's
	at   time.Time
}

const maxMarks = 1024

func (a *ages) appended(from position, now time.Time) {
	marks := *a
	if n := len(marks); n > 0 && now.Sub(marks[n-1].at).Abs() < time.Second {
		return
	}
	if len(marks) == maxMarks {
		for i := range maxMarks / 2 {
			marks[i] = marks[2*i]
		}
		marks = marks[:maxMarks/2]
	}
	*a = append(marks, mark{from, now})
}

// sent forgets the marks of which all records have been sent.
func (a *ages) sent(to position) {
	n := 0
	for n+1 < len(*a) && !to.before((*a)[n+1].from) {
		n++
	}
	*a = slices.Delete(*a, 0, n)
}

func (a ages) oldest(now time.Time) time.Duration {
	if len(a) == 0 {
		return 0
	}
	return now.Sub(a[0].at)
}
