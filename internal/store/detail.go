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

// The widths of the columns of reject details, in whole difficulties and in hashes.
const (
	maxDetail       = 255
	maxDetailHashes = 1500
)

// FormatDetail writes rejected work by reason as btcpool does, {"23":12345,"22":678}: status code to difficulty, the
// greatest first. What does not fit the column is left out.
func FormatDetail(detail map[share.Status]bitcoin.Work) string {
	return formatReasons(detail, maxDetail, func(w bitcoin.Work) string { return strconv.FormatUint(w.Difficulty(), 10) })
}

// formatDetailHashes writes the same in hashes.
func formatDetailHashes(detail map[share.Status]bitcoin.Work) string {
	return formatReasons(detail, maxDetailHashes, bitcoin.Work.String)
}

func formatReasons(detail map[share.Status]bitcoin.Work, width int, amount func(bitcoin.Work) string) string {
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
		text = append(text, amount(detail[code])...)
		if len(text)+1 > width {
			text = text[:end]
			break
		}
	}
	return string(append(text, '}'))
}

// parseDetailHashes reads what formatDetailHashes wrote, unless the column of whole difficulties says something else:
// then its writer, the last one, did not know the other column.
func parseDetailHashes(hashes, whole string) map[share.Status]bitcoin.Work {
	if hashes == "" {
		return parseDetail(whole)
	}
	var sums map[share.Status]json.Number
	if json.Unmarshal([]byte(hashes), &sums) != nil {
		return parseDetail(whole)
	}
	detail := make(map[share.Status]bitcoin.Work, len(sums))
	for code, sum := range sums {
		w, err := bitcoin.ParseWork(sum.String())
		if err != nil {
			return parseDetail(whole)
		}
		detail[code] = w
	}
	if FormatDetail(detail) != whole {
		return parseDetail(whole)
	}
	return detail
}

// parseDetail reads what FormatDetail or btcpool wrote; text that is neither has no details.
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
