package switchapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"btcpool/internal/httpapi"
	"btcpool/internal/registry"
	"btcpool/internal/retry"
	"btcpool/internal/userchain"
)

const (
	registerInterval = time.Second // between looks at who is to be registered
	maxRequests      = 1000        // looked at each time
)

// registrar has users made whom servers ask for by nodes, and removes the nodes when that is done, or will not be.
type registrar struct {
	*Service
	room chan struct{} // for POSTs

	mu    sync.Mutex
	since map[string]time.Time // when a request was seen first
	busy  map[string]bool      // requests that are worked on
}

// register works until ctx ends.
func (s *Service) register(ctx context.Context) {
	r := &registrar{Service: s, room: make(chan struct{}, s.cfg.Registration.Parallel), since: make(map[string]time.Time), busy: make(map[string]bool)}
	var working sync.WaitGroup
	defer working.Wait()
	for ctx.Err() == nil {
		for _, name := range r.requests(ctx) {
			working.Go(func() { r.work(ctx, name) })
		}
		retry.Sleep(ctx, registerInterval)
	}
}

// requests returns those that nobody works on yet.
func (r *registrar) requests(ctx context.Context) (fresh []string) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Nodes.Timeout.Std())
	defer cancel()
	names, err := r.nodes.Children(ctx, r.cfg.Nodes.AutoReg)
	if r.pulled("requests", err); err != nil {
		return nil
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.metrics.requested.Set(float64(len(names)))
	there := make(map[string]time.Time)
	for _, name := range names[:min(len(names), maxRequests)] {
		since, ok := r.since[name]
		if !ok {
			since = now
		}
		there[name] = since
		if !r.busy[name] {
			r.busy[name] = true
			fresh = append(fresh, name)
		}
	}
	r.since = there
	return fresh
}

// work deals with a request. One that fails for now is looked at again, until its deadline.
func (r *registrar) work(ctx context.Context, name string) {
	defer func() {
		r.mu.Lock()
		delete(r.busy, name)
		r.mu.Unlock()
	}()
	r.mu.Lock()
	late := time.Since(r.since[name]) > r.cfg.Registration.Deadline.Std()
	r.mu.Unlock()
	err := r.serve(ctx, name)
	result := "registered"
	switch {
	case ctx.Err() != nil:
		return
	case err == nil:
	case errors.Is(err, errRefused):
		result = "refused"
	case late:
		result = "late"
	default:
		result = "failed"
	}
	r.metrics.registrations.WithLabelValues(result).Inc()
	if err != nil {
		r.pullLog.Do(func() { r.log.Warn().Err(err).Str("user", name).Msg("a user is not registered") })
	}
	if result == "failed" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Nodes.Timeout.Std())
	defer cancel()
	if err := r.nodes.Delete(ctx, r.cfg.Nodes.AutoReg+"/"+name); err != nil { // it is there the next time, and the user is known then
		r.log.Warn().Err(err).Msg("a request for a user is not removed")
	}
}

// errRefused is an answer that will not change.
var errRefused = errors.New("refused")

// serve has the user made unless there is one, and returns when servers can let it in.
func (r *registrar) serve(ctx context.Context, node string) error {
	user, f := r.canonical(node)
	if f != nil {
		return fmt.Errorf("%w: %w", errRefused, f)
	}
	if !r.lists.isKnown(user) {
		text, err := r.request(ctx, node)
		if err != nil {
			return err
		}
		r.log.Info().Str("user", user).Str("worker", text.Worker).Msg("registering a user")
		id, err := r.post(ctx, user)
		if err != nil {
			return err
		}
		r.lists.register(user, id)
		// Servers read their lists meanwhile; a node says the id itself.
		if !r.cfg.Nodes.JSON && !retry.Sleep(ctx, r.cfg.Users.SafetyPeriod.Std()) {
			return ctx.Err()
		}
	}
	now := time.Now()
	_, err := r.writeNode(ctx, change{User: user, first: r.cfg.Registration.DefaultChain, At: now, Due: now})
	return err
}

func (r *registrar) request(ctx context.Context, node string) (userchain.Request, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Nodes.Timeout.Std())
	defer cancel()
	content, err := r.nodes.Get(ctx, r.cfg.Nodes.AutoReg+"/"+node)
	if errors.Is(err, registry.ErrNoNode) {
		return userchain.Request{}, fmt.Errorf("%w: %w", errRefused, err) // who wanted it has gone
	}
	if err != nil {
		return userchain.Request{}, err
	}
	text, err := userchain.ParseRequest(content.Content)
	if err != nil {
		r.metrics.invalid.WithLabelValues("request").Inc()
		return text, fmt.Errorf("%w: %w", errRefused, err)
	}
	return text, nil
}

// post asks the user system for a user.
func (r *registrar) post(ctx context.Context, user string) (int32, error) {
	cfg := r.cfg.Registration
	select {
	case r.room <- struct{}{}:
		defer func() { <-r.room }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout.Std())
	defer cancel()
	fields := make(map[string]string, len(cfg.Body))
	for key, value := range cfg.Body {
		fields[key] = strings.ReplaceAll(value, "{sub_name}", user)
	}
	body, err := json.Marshal(fields)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cfg.URL, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	if cfg.User != "" {
		req.SetBasicAuth(cfg.User, r.password)
	}
	text, err := httpapi.Fetch(r.http, req, maxQuotes)
	if err != nil {
		return 0, err
	}
	id, err := parseRegistered(text)
	if err != nil {
		err = fmt.Errorf("%w: %w", errRefused, err)
	}
	return id, err
}
