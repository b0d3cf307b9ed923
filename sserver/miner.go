package sserver

import (
	"slices"

	"btcpool/internal/bitcoin"
	"btcpool/internal/vardiff"
)

// miner is a machine with a difficulty of its own.
type miner struct {
	Difficulty vardiff.State
	Fixed      bool   // Difficulty stays as it is
	Told       []told // oldest first; never empty once it has a job

	Rejects rejectRate
}

// told is a difficulty that a miner was told of.
type told struct {
	From       uint32 // number of the first job that has it
	Difficulty bitcoin.Difficulty
}

// tell notes that jobs have difficulty d from a number on. Jobs before oldest are forgotten.
func (m *miner) tell(d bitcoin.Difficulty, from, oldest uint32) {
	done := 0
	for done+1 < len(m.Told) && m.Told[done+1].From <= oldest {
		done++
	}
	m.Told = append(slices.Delete(m.Told, 0, done), told{from, d})
}

// announced returns the difficulty of the jobs to come, as far as the miner knows.
func (m *miner) announced() bitcoin.Difficulty { return m.Told[len(m.Told)-1].Difficulty }

// difficultyOf returns what shares of a job must meet, whatever came later.
func (m *miner) difficultyOf(job uint32) bitcoin.Difficulty {
	i := len(m.Told) - 1
	for i > 0 && m.Told[i].From > job {
		i--
	}
	return m.Told[i].Difficulty
}
