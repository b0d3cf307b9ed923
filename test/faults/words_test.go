//go:build integration

package faults

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// happened is a draught and what services said meanwhile that were not ready, by name.
type happened struct {
	draught
	words map[string][]string
}

// watch asks all services whether they can work, while a draught lasts. It returns what those said that cannot, each
// thing once.
func (w *world) watch(length time.Duration) map[string][]string {
	const every, patient = 250 * time.Millisecond, time.Second
	ctx, cancel := context.WithTimeout(w.t.Context(), length)
	defer cancel()
	words := map[string][]string{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, service := range w.pool.Names {
		all.Go(func() {
			for ctx.Err() == nil {
				ask, over := context.WithTimeout(ctx, patient)
				err := w.pool.Ready(ask, service)
				over()
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					mu.Lock()
					for _, word := range wordsOf(err) {
						if !slices.Contains(words[service], word) {
							words[service] = append(words[service], word)
						}
					}
					mu.Unlock()
				}
				select {
				case <-ctx.Done():
				case <-time.After(every):
				}
			}
		})
	}
	all.Wait()
	return words
}

const (
	noAnswer = "no answer"
	noWord   = "not ready, without a word"
)

var differs = regexp.MustCompile(`[0-9]+(\.[0-9]+)?(µs|ms|s|m|h)?`)

// wordsOf are the reasons that /readyz gives, without numbers.
func wordsOf(err error) (words []string) {
	_, body, answered := strings.Cut(err.Error(), "503 Service Unavailable: ")
	if !answered {
		return []string{noAnswer}
	}
	for line := range strings.Lines(body) {
		if line = strings.TrimSpace(line); line != "" {
			words = append(words, differs.ReplaceAllString(line, "…"))
		}
	}
	if words == nil {
		return []string{noWord}
	}
	return words
}

// table prints how often each kind of fault was, and which services said what of those that came alone.
func (w *world) table(t *testing.T) {
	t.Helper()
	type row struct {
		times int
		words map[string]int
		long  time.Duration
	}
	rows := map[string]*row{}
	for _, h := range w.history {
		for _, f := range h.faults {
			if rows[f.kind] == nil {
				rows[f.kind] = &row{words: map[string]int{}}
			}
			r := rows[f.kind]
			r.times++
			r.long += h.length
			if len(h.faults) > 1 {
				continue
			}
			for service, words := range h.words {
				if service == f.target {
					service = "it"
				}
				for _, word := range words {
					r.words[service+": "+word]++
				}
			}
		}
	}
	out := tabwriter.NewWriter(t.Output(), 0, 0, 1, ' ', 0)
	fmt.Fprint(out, "| fault\t| times\t| lasted\t| what /readyz said while it was alone\t|\n| ---\t| ---\t| ---\t| ---\t|\n")
	for _, kind := range allKinds() {
		r := rows[kind]
		if r == nil {
			continue
		}
		var said []string
		for word, n := range r.words {
			said = append(said, fmt.Sprintf("%s (%d)", word, n))
		}
		slices.Sort(said)
		fmt.Fprintf(out, "| %s\t| %d\t| %.0f s\t| %s\t|\n", kind, r.times, r.long.Seconds(), strings.Join(said, "; "))
	}
	out.Flush()
}
