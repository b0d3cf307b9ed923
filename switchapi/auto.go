package switchapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/durable"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/userchain"
)

const (
	sendTimeout = 10 * time.Second
	// maxServers bounds whose answers are remembered: ids are of one byte.
	maxServers = 256
)

// auto chooses what the users in auto mode mine, and commands the servers.
type auto struct {
	*Service
	cfg   AutoChain
	rules rules
	bus   *bus.Client
	state string // file
	again retry.Bell

	decisions *dayLog

	mu      sync.Mutex
	now     choice
	last    *decision
	servers map[uint32]userchain.Notice
}

// decision is a line of the log of decisions.
type decision struct {
	Time      time.Time          `json:"time"`
	Reason    string             `json:"reason"`
	Best      string             `json:"best"`
	Shares    userchain.Shares   `json:"shares"`
	Before    userchain.Shares   `json:"before"`
	Worth     map[string]float64 `json:"worth"`
	Ranked    bool               `json:"ranked"`
	Hashrates map[string]float64 `json:"hashrates"`
	DryRun    bool               `json:"dry_run"`
	ID        uint64             `json:"id"` // of the command; 0: none was sent
}

// openAuto reads what an earlier run had chosen, which holds until sources have been silent for too long again.
func (s *Service) openAuto(deps service.Deps) (err error) {
	a := &auto{
		Service: s, cfg: s.cfg.AutoChain, rules: rules{s.cfg.AutoChain, make(map[string]float64)}, state: filepath.Join(s.cfg.DataDir, "auto.json"),
		again: retry.NewBell(), decisions: s.newDayLog("decisions"), servers: make(map[uint32]userchain.Notice),
	}
	s.closing.Add(a.decisions.Close)
	for _, of := range a.cfg.Chains {
		if of.MaxHashrate != "" {
			if a.rules.caps[of.Chain], err = parseHashrate(of.MaxHashrate); err != nil {
				return err
			}
		}
	}
	durable.Sweep(a.state)
	text, err := os.ReadFile(a.state)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		if a.now, err = parseChoice(text, a.cfg); err != nil {
			s.log.Warn().Err(err).Str("file", a.state).Msg("what was chosen before is not known, choosing anew")
		} else {
			a.now.Quoted = time.Now()
		}
	}
	if a.bus, err = bus.New(s.cfg.Kafka, deps); err != nil {
		return err
	}
	s.closing.Add(a.bus.Close)
	s.auto = a
	return nil
}

// parseChoice reads the file of an earlier run. Chains that are not configured any more make it void.
func parseChoice(text []byte, cfg AutoChain) (c choice, err error) {
	if err := json.Unmarshal(text, &c); err != nil {
		return choice{}, err
	}
	if err := c.Shares.Check(); err != nil {
		return choice{}, err
	}
	for _, chain := range append(slices.Collect(maps.Keys(c.Shares)), c.Best) {
		if !slices.ContainsFunc(cfg.Chains, func(of AutoOf) bool { return of.Chain == chain }) {
			return choice{}, fmt.Errorf("chain %.40q is not one of auto.chains", chain)
		}
	}
	return c, nil
}

// run decides and commands each interval, and once more when a server has started, until ctx ends.
func (a *auto) run(ctx context.Context) error {
	if err := a.bus.EnsureTopics(ctx, a.cfg.ControllerTopic, a.cfg.ProcessorTopic); err != nil || ctx.Err() != nil {
		return err
	}
	a.kafka.Set(nil)
	var listening sync.WaitGroup
	defer listening.Wait()
	listening.Go(func() {
		_ = a.bus.Read(ctx, a.cfg.ProcessorTopic, bus.Latest(), func(m bus.Message) error { // hear returns none
			a.hear(m.Value)
			return nil
		})
	})
	tick := time.NewTicker(a.cfg.Interval.Std())
	defer tick.Stop()
	for a.decide(ctx); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			a.decide(ctx)
		case <-a.again:
			a.send(ctx)
		}
	}
}

// decide chooses, remembers, commands and logs.
func (a *auto) decide(ctx context.Context) {
	o := a.look(ctx)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	a.mu.Lock()
	before := a.now
	a.mu.Unlock()
	next, reason := a.rules.decide(now, before, o)
	a.metrics.decisions.WithLabelValues(reason).Inc()
	a.mu.Lock()
	a.now = next
	a.mu.Unlock()
	if !next.Since.Equal(before.Since) {
		a.log.Info().Str("reason", reason).Any("shares", next.Shares).Any("before", before.Shares).Bool("dry_run", a.cfg.DryRun).Msg("users in auto mode change chains")
	}
	id := a.send(ctx)
	for chain, part := range next.Shares {
		a.metrics.share.WithLabelValues(chain).Set(part)
	}
	for chain := range before.Shares {
		if _, ok := next.Shares[chain]; !ok {
			a.metrics.share.WithLabelValues(chain).Set(0)
		}
	}
	d := decision{now.UTC(), reason, next.Best, orNone(next.Shares), orNone(before.Shares), orNone(o.worth), o.rank, orNone(o.rates), a.cfg.DryRun, id}
	a.mu.Lock()
	a.last = &d
	a.mu.Unlock()
	a.decisions.write(now, d)
}

func orNone[M ~map[string]float64](m M) M {
	if m == nil {
		return M{}
	}
	return m
}

// look asks what chains are worth, and how much the pool mines on them.
func (a *auto) look(ctx context.Context) outlook {
	q := a.readQuotes(ctx, time.Now())
	o := outlook{worth: make(map[string]float64), rates: make(map[string]float64)}
	for _, of := range a.cfg.Chains {
		if w := q.of[of.Coin].worth(); w > 0 {
			o.worth[of.Chain] = w
		}
		if of.HashrateURL == "" {
			continue
		}
		rate, err := a.readRate(ctx, of.HashrateURL)
		a.pulled("hashrate_"+of.Chain, err)
		if err == nil {
			o.rates[of.Chain] = rate
		}
	}
	if len(o.worth) > 0 {
		return o
	}
	for i, coin := range q.ranked {
		for _, of := range a.cfg.Chains {
			if _, twice := o.worth[of.Chain]; of.Coin == coin && !twice {
				o.worth[of.Chain], o.rank = float64(len(q.ranked)-i), true
			}
		}
	}
	return o
}

func (a *auto) readRate(ctx context.Context, from string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout.Std())
	defer cancel()
	text, err := a.get(ctx, from)
	if err != nil {
		return 0, err
	}
	rate, err := parseRate(text)
	if err != nil {
		a.metrics.invalid.WithLabelValues("hashrate").Inc()
	}
	return rate, err
}

// send commands the servers and returns the id of the command; 0: none was sent. What is chosen is on disk before.
func (a *auto) send(ctx context.Context) (id uint64) {
	now := time.Now()
	a.mu.Lock()
	if len(a.now.Shares) == 0 {
		a.mu.Unlock()
		return 0
	}
	a.now.ID = max(a.now.ID+1, uint64(now.UnixMilli())) // it grows even if the file is lost
	c := a.now
	text, err := json.Marshal(c)
	a.mu.Unlock()
	if err == nil {
		err = durable.Replace(a.state, text, 0o640)
	}
	if err != nil { // a restart chooses anew
		a.log.Error().Err(err).Msg("what was chosen is not kept")
	}
	if a.cfg.DryRun {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	command := userchain.SwitchCommand{ID: c.ID, At: now, Shares: c.Shares}
	if err := a.bus.Write(ctx, a.cfg.ControllerTopic, bus.Message{Value: command.Encode()}); err != nil {
		a.metrics.unsent.Inc()
		a.kafka.Set(fmt.Errorf("topic %s: %w", a.cfg.ControllerTopic, err))
		return 0
	}
	a.kafka.Set(nil)
	a.metrics.commands.Inc()
	a.metrics.lastCommand.SetToCurrentTime()
	return c.ID
}

// hear takes in what a server says.
func (a *auto) hear(text []byte) {
	n, err := userchain.ParseNotice(text)
	switch {
	case errors.Is(err, userchain.ErrForeign):
		return
	case err != nil:
		a.metrics.invalid.WithLabelValues("notice").Inc()
		return
	case n.Online:
		a.again.Ring()
		return
	}
	result := "done"
	if !n.Done {
		result = "not_done"
	}
	a.metrics.responses.WithLabelValues(result).Inc()
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.servers[n.ServerID]; known || len(a.servers) < maxServers {
		a.servers[n.ServerID] = n
	}
}

// status returns the last decision, nil if there is none yet, and what each server said to the last command.
func (a *auto) status() (*decision, map[string]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	said := make(map[string]string)
	for id, n := range a.servers {
		text := n.Reason
		if n.Done {
			text = "done"
		}
		said[strconv.FormatUint(uint64(id), 10)] = fmt.Sprintf("%d: %.200s", n.ID, text)
	}
	return a.last, said
}
