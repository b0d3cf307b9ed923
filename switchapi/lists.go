package switchapi

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	"btcpool/internal/retry"
	"btcpool/internal/store"
	"btcpool/internal/telemetry"
	"btcpool/internal/userchain"
	"btcpool/internal/users"
)

// lists are the users of each chain, and since when they are known.
type lists struct {
	cfg    Config
	chains []string // that have a list of their own, in the order of the configuration
	all    *users.Lists
	of     map[string]*users.List // by chain; one list alone is that of all chains. Empty: there are none

	mu         sync.Mutex
	known      map[*users.List]map[string]knownUser
	noticed    map[*users.List]noticed
	registered map[string]int32 // users that were made here, until their lists have them
}

// noticed tells whether a list is the same still.
type noticed struct {
	version uint64
	size    int
}

type knownUser struct {
	id    int32
	since time.Time
}

// maxRegistered bounds what is remembered of users that no list ever shows.
const maxRegistered = 100_000

func openLists(cfg Config, deps telemetry.Deps) (*lists, error) {
	l := &lists{
		cfg: cfg, of: make(map[string]*users.List), known: make(map[*users.List]map[string]knownUser),
		noticed: make(map[*users.List]noticed), registered: make(map[string]int32),
	}
	var sources []users.Source
	for _, list := range cfg.Lists {
		sources = append(sources, users.Source{Kind: users.API, ListURL: list.URL})
	}
	var err error
	l.all, err = users.New("switchapi", cfg.Users.config(), sources, cfg.DataDir, store.Config{}, deps)
	if err != nil {
		return nil, err
	}
	for i, list := range cfg.Lists {
		l.chains = append(l.chains, list.Chain)
		l.of[list.Chain] = l.all.Of(sources[i])
	}
	if len(cfg.Lists) == 1 {
		for _, chain := range cfg.Chains {
			l.of[chain] = l.of[cfg.Lists[0].Chain]
		}
	}
	return l, nil
}

// follow hands chores for users that are new, or have new ids, to take until ctx ends.
func (l *lists) follow(ctx context.Context, take func(...change)) {
	take(l.notice(time.Time{}, time.Now())...) // those of an earlier run are nothing new
	for retry.Sleep(ctx, l.cfg.Users.ListInterval.Std()/2) {
		now := time.Now()
		take(l.notice(now, now)...)
	}
}

// notice returns chores for users who were not there the last time, or with other ids. They are known since then.
func (l *lists) notice(since, now time.Time) (chores []change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, chain := range l.chains {
		list := l.of[chain]
		is := noticed{list.Version(), list.Size()}
		if was, ok := l.noticed[list]; ok && is == was {
			continue
		}
		l.noticed[list] = is
		before := l.known[list]
		users := make(map[string]knownUser)
		for name, id := range list.All() {
			if userchain.CheckUser(name) != nil {
				continue // whom no server asks for
			}
			u, ok := before[name]
			if !ok {
				u.since = since
			}
			if !ok || u.id != id && l.cfg.Nodes.JSON {
				chores = append(chores, change{User: name, first: chain, At: now, Due: now})
				delete(l.registered, name)
			}
			u.id = id
			users[name] = u
		}
		l.known[list] = users
	}
	return chores
}

// register remembers the id of a user that was made here.
func (l *lists) register(user string, id int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.registered) < maxRegistered {
		l.registered[user] = id
	}
}

// ids returns the ids of a user by chain.
func (l *lists) ids(user string) map[string]int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := make(map[string]int32)
	if id, ok := l.registered[user]; ok {
		for _, chain := range l.cfg.Chains {
			ids[chain] = id
		}
	}
	for chain, list := range l.of {
		if u, ok := l.known[list][user]; ok {
			ids[chain] = u.id
		}
	}
	return ids
}

// first returns the first chain whose list has the user, "" if none does.
func (l *lists) first(user string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, chain := range l.chains {
		if _, ok := l.known[l.of[chain]][user]; ok {
			return chain
		}
	}
	return ""
}

// isKnown reports whether some list has the user.
func (l *lists) isKnown(user string) bool { return len(l.ids(user)) > 0 }

// safe returns from when on a user may be switched to a chain, and what is to be said about that.
func (l *lists) safe(user, chain string, now time.Time) (due time.Time, warning string) {
	if len(l.of) == 0 {
		return now, ""
	}
	if chain == userchain.Auto {
		ids := l.ids(user)
		var without []string
		for _, of := range l.cfg.AutoChain.Chains {
			if ids[of.Chain] == 0 {
				without = append(without, of.Chain)
			}
		}
		if len(without) > 0 {
			return now, "no list has the user on " + strings.Join(without, ", ") + ": there it stays on its old chain"
		}
		return now, ""
	}
	period := l.cfg.Users.SafetyPeriod.Std()
	if l.cfg.Nodes.JSON {
		period = 0 // the node says the id
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	u, ok := l.known[l.of[chain]][user]
	if !ok {
		return now.Add(period), "the list of " + chain + " does not have the user: servers keep it on its old chain until then"
	}
	if from := u.since.Add(period); from.After(now) {
		return from, ""
	}
	return now, ""
}

// after returns the users of a chain, or of all if it is "", whose ids are above last.
func (l *lists) after(chain string, last int32) map[string]int32 {
	found := make(map[string]int32)
	for _, c := range l.chains {
		if chain != "" && chain != c && l.of[chain] != l.of[c] {
			continue
		}
		for name, id := range l.of[c].All() {
			if id > last {
				found[name] = id
			}
		}
	}
	if len(l.chains) == 0 {
		l.mu.Lock()
		defer l.mu.Unlock()
		maps.Copy(found, l.registered)
		maps.DeleteFunc(found, func(_ string, id int32) bool { return id <= last })
	}
	return found
}

// counts returns how many users each list has.
func (l *lists) counts() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := make(map[string]int)
	for _, chain := range l.chains {
		counts[chain] = len(l.known[l.of[chain]])
	}
	return counts
}
