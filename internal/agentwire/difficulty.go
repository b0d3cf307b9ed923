package agentwire

import (
	"encoding/binary"
	"maps"
	"slices"

	"btcpool/internal/bitcoin"
)

// maxSessions fit into one frame of CmdSetDifficulty.
const maxSessions = (MaxFrame - headerSize - 1 - 2) / 2

// SetDifficulty tells an agent the difficulty of some of its miners from the next job on.
type SetDifficulty struct {
	Difficulty bitcoin.Difficulty
	Sessions   []Session
}

// ParseSetDifficulty reads a frame of CmdSetDifficulty.
func ParseSetDifficulty(f Frame) (SetDifficulty, error) {
	if f.Command != CmdSetDifficulty || len(f.Body) < 1+2 {
		return SetDifficulty{}, ErrFrame
	}
	difficulty := bitcoin.Difficulty(f.Body[0])
	ids := f.Body[1+2:]
	if difficulty < bitcoin.MinDifficulty || difficulty > bitcoin.MaxDifficulty || len(ids) != 2*int(binary.LittleEndian.Uint16(f.Body[1:])) {
		return SetDifficulty{}, ErrFrame
	}
	d := SetDifficulty{Difficulty: difficulty, Sessions: make([]Session, 0, len(ids)/2)}
	for id := range slices.Chunk(ids, 2) {
		session, err := parseSession(id)
		if err != nil {
			return SetDifficulty{}, err
		}
		d.Sessions = append(d.Sessions, session)
	}
	return d, nil
}

// AppendTo appends d as one frame, or as several where its sessions do not fit into one. Only an agent that asked for the
// capability "smalldiff" understands a difficulty below 1.
func (d SetDifficulty) AppendTo(dst []byte) []byte {
	for sessions := d.Sessions; ; {
		n := min(len(sessions), maxSessions)
		dst = appendHeader(dst, CmdSetDifficulty, headerSize+1+2+2*n)
		dst = append(dst, byte(d.Difficulty))
		dst = binary.LittleEndian.AppendUint16(dst, uint16(n))
		for _, s := range sessions[:n] {
			dst = appendSession(dst, s)
		}
		if sessions = sessions[n:]; len(sessions) == 0 {
			return dst
		}
	}
}

// AppendSetDifficulties appends the frames that tell each miner its difficulty, in ascending order of difficulties and
// sessions. To the agent they mean the job that follows: a raised difficulty that comes after it costs shares.
func AppendSetDifficulties[S ~uint16](dst []byte, difficulties map[S]bitcoin.Difficulty) []byte {
	groups := make(map[bitcoin.Difficulty][]Session)
	for s, d := range difficulties {
		groups[d] = append(groups[d], Session(s))
	}
	for _, d := range slices.Sorted(maps.Keys(groups)) {
		slices.Sort(groups[d])
		dst = SetDifficulty{Difficulty: d, Sessions: groups[d]}.AppendTo(dst)
	}
	return dst
}
