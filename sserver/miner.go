package sserver

import (
	"slices"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/vardiff"
)

// worker is whom shares are credited to.
type worker struct {
	UserName string
	UserID   int32
	Name     string // without the user's
	ID       int64
}

func (w worker) fullName() string { return w.UserName + "." + w.Name }

// is reports whether a login with name makes this worker.
func (w worker) is(name []byte, canonical func(string) string) bool {
	n := len(w.UserName)
	if len(name) == n+1+len(w.Name) && string(name[:n]) == w.UserName && name[n] == '.' && string(name[n+1:]) == w.Name {
		return true
	}
	user, own := splitName(string(name), canonical)
	return user == w.UserName && own == w.Name
}

// miner is a machine with a difficulty of its own.
type miner struct {
	Difficulty vardiff.State
	Fixed      bool   // Difficulty stays as it is
	Told       []told // oldest first; never empty once it has a job

	Rejects rejectRate
}

// tally is what became of shares.
type tally struct {
	Accepted, Rejected uint32
	Last               int64 // when one was accepted, unix seconds; 0: never
}

func (t *tally) add(status share.Status, now time.Time) {
	if !status.IsAccepted() {
		t.Rejected++
		return
	}
	t.Accepted++
	t.Last = now.Unix()
}

// told is a difficulty that a miner was told of.
type told struct {
	From       uint32 // number of the first job that has it
	Difficulty bitcoin.Difficulty
}

// tell notes that jobs have difficulty d from a number on. Jobs before oldest
// are forgotten.
func (m *miner) tell(d bitcoin.Difficulty, from, oldest uint32) {
	done := 0
	for done+1 < len(m.Told) && m.Told[done+1].From <= oldest {
		done++
	}
	m.Told = append(slices.Delete(m.Told, 0, done), told{from, d})
}

// announced returns the difficulty of the jobs to come, as far as the miner
// knows.
func (m *miner) announced() bitcoin.Difficulty { return m.Told[len(m.Told)-1].Difficulty }

// difficultyOf returns what shares of a job must meet, whatever came later.
func (m *miner) difficultyOf(job uint32) bitcoin.Difficulty {
	i := len(m.Told) - 1
	for i > 0 && m.Told[i].From > job {
		i--
	}
	return m.Told[i].Difficulty
}

// rejectRate recognizes a miner of whose rejected shares there are too many to
// be worth logging: maxRejects within rejectWindow.
type rejectRate struct {
	At   []int64 // unix seconds of the last maxRejects, a ring
	Next int
}

const (
	maxRejects   = 20
	rejectWindow = 60 // seconds
)

// add counts a reject and reports whether it is one too many.
func (r *rejectRate) add(now time.Time) bool {
	if r.At == nil {
		r.At = make([]int64, maxRejects)
	}
	r.At[r.Next] = now.Unix()
	r.Next = (r.Next + 1) % maxRejects
	return now.Unix()-r.At[r.Next] < rejectWindow
}
