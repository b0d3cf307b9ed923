package switcher

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"btcpool/internal/chainwatch"
	"btcpool/internal/registry"
	"btcpool/internal/share"
	"btcpool/internal/userchain"
)

// maxName bounds what a miner may call itself, in bytes.
const maxName = 1 << 10

// name is what a miner logs in by: a user, and what follows it with the dot.
type name struct{ user, miner string }

// splitName takes a worker's name apart. Case says how the user's part is written.
func splitName(full string, lower bool) (name, *refusal) {
	if len(full) > maxName {
		return name{}, &refuseName
	}
	full = share.CleanName(full)
	user, rest, dot := strings.Cut(full, ".")
	if dot {
		rest = "." + rest
	}
	if user == "" {
		return name{}, &refuseNoName
	}
	if lower {
		user = strings.ToLower(user)
	}
	if userchain.CheckUser(user) != nil {
		return name{}, &refuseName
	}
	return name{user, rest}, nil
}

func (n name) String() string { return n.user + n.miner }

// suffixed is the name by which a user may be known on one chain only.
func (n name) suffixed(suffix string) string { return n.user + "_" + suffix + n.miner }

// spellings knows how users' names are written, whom miners call as they like: by an index in ZooKeeper, which has a node
// a user by its name in lower case. While ZooKeeper is away those go on that were used before.
type spellings struct {
	users   *chainwatch.Watcher
	index   string
	timeout time.Duration
	most    int // that are remembered

	mu      sync.Mutex
	byLower map[string]string
}

// newSpellings returns nil when names are written as they come, or in lower case.
func newSpellings(u Users, users *chainwatch.Watcher) *spellings {
	if u.CaseIndex == "" || u.CaseInsensitive {
		return nil
	}
	s := &spellings{users: users, index: u.CaseIndex, timeout: u.Timeout.Std(), most: u.MaxUsers, byLower: make(map[string]string)}
	for _, user := range users.Known() {
		s.remember(user)
	}
	return s
}

// all returns what is remembered, for another process to learn.
func (s *spellings) all() map[string]string {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.byLower)
}

func (s *spellings) learn(byLower map[string]string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.byLower, byLower)
}

func (s *spellings) remember(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lower := strings.ToLower(user)
	if _, there := s.byLower[lower]; there || len(s.byLower) < s.most {
		s.byLower[lower] = user
	}
}

func (s *spellings) remembered(user string) string {
	if answer, _ := s.users.Last(user); answer.Known {
		return user
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if spelt, there := s.byLower[strings.ToLower(user)]; there {
		return spelt
	}
	return user
}

// of returns how a user's name is written; as it came, if nobody knows.
func (s *spellings) of(ctx context.Context, user string) string {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	lower := strings.ToLower(user)
	node, err := s.users.Nodes().Get(ctx, s.index+"/"+lower)
	spelt := string(node.Content)
	switch {
	case errors.Is(err, registry.ErrNoNode):
		return user
	case err != nil:
		return s.remembered(user)
	case userchain.CheckUser(spelt) != nil || !strings.EqualFold(spelt, user):
		return user
	}
	s.remember(spelt)
	return spelt
}
