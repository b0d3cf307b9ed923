package store

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

// maxDetail is the width of the columns of reject details.
const maxDetail = 255

// formatDetail writes rejected work by reason as btcpool does, {"23":12345,"22":678}: status code to difficulty, the
// greatest first. What does not fit the column is left out.
func formatDetail(detail map[share.Status]bitcoin.Work) string {
	if len(detail) == 0 {
		return ""
	}
	codes := slices.SortedFunc(maps.Keys(detail), func(a, b share.Status) int {
		return cmp.Or(detail[b].Cmp(detail[a]), cmp.Compare(a, b))
	})
	text := []byte{'{'}
	for i, code := range codes {
		end := len(text)
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, '"')
		text = strconv.AppendInt(text, int64(code), 10)
		text = append(text, '"', ':')
		text = strconv.AppendUint(text, detail[code].Difficulty(), 10)
		if len(text)+1 > maxDetail {
			text = text[:end]
			break
		}
	}
	return string(append(text, '}'))
}

// parseDetail reads what formatDetail or btcpool wrote; text that is neither has no details.
func parseDetail(text string) map[share.Status]bitcoin.Work {
	var sums map[share.Status]uint64
	if json.Unmarshal([]byte(text), &sums) != nil || len(sums) == 0 {
		return nil
	}
	detail := make(map[share.Status]bitcoin.Work, len(sums))
	for code, sum := range sums {
		detail[code] = difficultyWork(sum)
	}
	return detail
}
