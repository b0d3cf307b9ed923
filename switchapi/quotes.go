package switchapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"btcpool/internal/config"
	"btcpool/internal/httpapi"
)

// quote is what sources say of a coin; 0: nothing.
type quote struct {
	Price      float64 `json:"price"`      // of a coin, in any currency that all have
	Difficulty float64 `json:"difficulty"` // of the network
	Reward     float64 `json:"reward"`     // of a block, in coins, fees included
}

// worth is what a hash earns, in no unit: it is for comparing. 0: not known.
func (q quote) worth() float64 {
	w := q.Price * q.Reward / q.Difficulty
	if math.IsNaN(w) || math.IsInf(w, 0) {
		return 0
	}
	return w
}

// quotes is what a source says, or all do.
type quotes struct {
	of     map[string]quote // by coin
	ranked []string         // coins, the best first; instead of what they are worth
	at     time.Time        // zero: it does not say
}

const maxCoins = 1000

// parseQuotes reads either form,
//
//	{"time":1600000000,"coins":{"BTC":{"price":60000,"difficulty":1e14,"reward":3.125}}}
//	{"algorithms":{"SHA256":{"coins":["BCH","BTC"]}}}
//
// where the first may leave anything out, and the second, btcpool's, is in order.
func parseQuotes(text []byte, algorithm string) (q quotes, err error) {
	var source struct {
		Time       float64          `json:"time"`
		Coins      map[string]quote `json:"coins"`
		Algorithms map[string]struct {
			Coins []string `json:"coins"`
		} `json:"algorithms"`
	}
	if err := json.Unmarshal(text, &source); err != nil {
		return q, err
	}
	q.of, q.ranked = source.Coins, source.Algorithms[algorithm].Coins
	switch {
	case len(q.of) == 0 && len(q.ranked) == 0:
		return quotes{}, errors.New("says nothing of coins")
	case len(q.of) > maxCoins || len(q.ranked) > maxCoins:
		return quotes{}, fmt.Errorf("says something of more than %d coins", maxCoins)
	case source.Time < 0 || source.Time > 1e11:
		return quotes{}, errors.New("time is none")
	case source.Time > 0:
		q.at = time.Unix(int64(source.Time), 0)
	}
	for coin, of := range q.of {
		for _, n := range []float64{of.Price, of.Difficulty, of.Reward} {
			if !(n >= 0 && n <= 1e30) {
				return quotes{}, fmt.Errorf("%.20q has a value of %v", coin, n)
			}
		}
	}
	return q, nil
}

// readQuotes asks all sources side by side and returns what they say together: of each value the first that says it. A
// source that fails is left out, and so is one whose word is too old.
func (a *auto) readQuotes(ctx context.Context, now time.Time) quotes {
	all := make([]quotes, len(a.cfg.Sources))
	var g errgroup.Group
	for i, source := range a.cfg.Sources {
		g.Go(func() error {
			q, err := a.readSource(ctx, source)
			if err == nil && !q.at.IsZero() && now.Sub(q.at).Abs() > a.cfg.FailSafeAfter.Std() {
				err = fmt.Errorf("what it says is of %s", q.at.UTC().Format(time.DateTime))
			}
			a.pulled(fmt.Sprintf("quotes_%d", i), err)
			if err == nil {
				all[i] = q
			}
			return nil
		})
	}
	_ = g.Wait() // nobody returns an error
	together := quotes{of: make(map[string]quote)}
	for _, q := range all {
		for coin, of := range q.of {
			is := together.of[coin]
			is.Price, is.Difficulty, is.Reward = first(is.Price, of.Price), first(is.Difficulty, of.Difficulty), first(is.Reward, of.Reward)
			together.of[coin] = is
		}
		if together.ranked == nil {
			together.ranked = q.ranked
		}
	}
	return together
}

func first(a, b float64) float64 {
	if a != 0 {
		return a
	}
	return b
}

func (a *auto) readSource(ctx context.Context, source string) (quotes, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout.Std())
	defer cancel()
	var text []byte
	var written time.Time
	var err error
	if config.CheckWebURL(source) == nil {
		text, err = a.get(ctx, source)
	} else {
		text, written, err = readFile(source)
	}
	if err != nil {
		return quotes{}, err
	}
	q, err := parseQuotes(text, a.cfg.Algorithm)
	if err != nil {
		a.metrics.invalid.WithLabelValues("quotes").Inc()
	}
	if q.at.IsZero() {
		q.at = written
	}
	return q, err
}

func (a *auto) get(ctx context.Context, from string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	return httpapi.Fetch(a.http, req, maxQuotes)
}

func readFile(path string) (text []byte, written time.Time, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, written, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, written, err
	}
	text, err = io.ReadAll(io.LimitReader(f, maxQuotes+1))
	if err == nil && len(text) > maxQuotes {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxQuotes)
	}
	return text, info.ModTime(), err
}

// parseRate reads the hashrate of the last five minutes that a statshttpd tells of its pool. A pool that nobody mines
// for has none that can be measured: 0.
func parseRate(text []byte) (float64, error) {
	var pool struct {
		Starting bool `json:"starting"`
		Hashrate *struct {
			M5 *float64 `json:"5m"`
		} `json:"hashrate"`
	}
	if err := json.Unmarshal(text, &pool); err != nil {
		return 0, err
	}
	if pool.Hashrate == nil || pool.Starting {
		return 0, errors.New("does not know the hashrate yet")
	}
	rate := pool.Hashrate.M5
	if rate == nil {
		return 0, nil
	}
	if !(*rate >= 0 && *rate < 1e30) {
		return 0, fmt.Errorf("a hashrate of %v", *rate)
	}
	return *rate, nil
}

const prefixes = "kMGTPEZY"

// parseHashrate reads hashes a second, like "100P".
func parseHashrate(text string) (float64, error) {
	number, factor := strings.TrimSpace(text), 1.0
	if i := len(number) - 1; i > 0 {
		if power := strings.IndexByte(prefixes, number[i]); power >= 0 || number[i] == 'K' {
			for range max(power, 0) + 1 {
				factor *= 1000
			}
			number = number[:i]
		}
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || !(n > 0 && n < 1e15) {
		return 0, errors.New(`must be hashes a second, like "100P"`)
	}
	return n * factor, nil
}
