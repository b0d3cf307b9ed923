package stratum

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"btcpool/internal/bitcoin"
	"btcpool/internal/jsonscan"
)

// AppendSetDifficulty appends the notification of the difficulty of the jobs to come.
func AppendSetDifficulty(dst []byte, d bitcoin.Difficulty) []byte {
	dst = append(dst, `{"id":null,"method":"mining.set_difficulty","params":[`...)
	dst = d.AppendTo(dst)
	return append(dst, "]}\n"...)
}

// AppendSetDifficultyOf is AppendSetDifficulty for what another pool has set, which need not be a power of two.
func AppendSetDifficultyOf(dst []byte, difficulty float64) []byte {
	dst = append(dst, `{"id":null,"method":"mining.set_difficulty","params":[`...)
	if whole := uint64(difficulty); difficulty >= 1 && float64(whole) == difficulty {
		dst = strconv.AppendUint(dst, whole, 10)
	} else {
		dst = strconv.AppendFloat(dst, difficulty, 'f', -1, 64)
	}
	return append(dst, "]}\n"...)
}

// ParseSetDifficulty reads the parameters of mining.set_difficulty: a finite number above zero, which need not be
// whole.
func ParseSetDifficulty(params []byte) (float64, error) {
	var list [1]jsonscan.Value
	elements(params, list[:])
	d, ok := number(list[0])
	if !ok {
		return 0, errors.New("difficulty is not a number")
	}
	if !(d > 0) || math.IsInf(d, 1) {
		return 0, fmt.Errorf("difficulty %.40s is not above zero", list[0])
	}
	return d, nil
}

// ParseSuggestDifficulty returns the difficulty of mining.suggest_difficulty, a positive number or its text, rounded up
// to a power of two.
func ParseSuggestDifficulty(params []byte) (bitcoin.Difficulty, error) {
	var list [1]jsonscan.Value
	elements(params, list[:])
	return difficulty(list[0])
}

// difficulty reads a positive number, or the text of one.
func difficulty(v jsonscan.Value) (bitcoin.Difficulty, error) {
	return ParseDifficulty(string(bare(v)))
}

// ParseSuggestTarget returns the difficulty of mining.suggest_target, whose parameter is a target of 1 to 64 hex
// digits, above zero, rounded up to a power of two.
func ParseSuggestTarget(params []byte) (bitcoin.Difficulty, error) {
	var list [1]jsonscan.Value
	elements(params, list[:])
	number := digits(unquoted(list[0]))
	if len(number) == 0 || len(number) > 64 {
		return 0, ErrParams
	}
	var target bitcoin.Target // least significant byte first
	for i := range len(number) {
		v := hexValue[number[len(number)-1-i]]
		if v > 15 {
			return 0, ErrParams
		}
		target[i/2] |= v << (4 * (i % 2))
	}
	if target == (bitcoin.Target{}) {
		return 0, ErrParams
	}
	return bitcoin.DifficultyAtLeast(target.Difficulty()), nil
}
