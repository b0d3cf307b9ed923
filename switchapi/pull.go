package switchapi

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"btcpool/internal/httpapi"
	"btcpool/internal/retry"
	"btcpool/internal/userchain"
)

// wholeEvery is how often the maps are read before all users are looked at again: a switch that a client had made
// meanwhile may have hidden what the map says.
const wholeEvery = 5

// followMap applies what the user system says of all users' chains and sub-pools until ctx ends.
func (s *Service) followMap(ctx context.Context) {
	cursor := int64(0) // by the user system's clock; 0: all
	for n := 0; ctx.Err() == nil; n++ {
		whole := n%wholeEvery == 0
		if whole {
			cursor = 0
		}
		if s.cfg.Map.URL != "" {
			m, err := s.readMap(ctx, s.cfg.Map.URL, "user_coin", cursor, whole)
			s.pulled("map", err)
			if err == nil && m.now > 0 {
				// What was switched within the second of the answer is in the next one again.
				cursor = max(m.now-int64(s.cfg.Map.Interval.Std().Seconds()), 0)
			}
		}
		if s.cfg.Map.SubPoolURL != "" {
			_, err := s.readMap(ctx, s.cfg.Map.SubPoolURL, "user_subpool", 0, whole)
			s.pulled("subpool_map", err)
		}
		retry.Sleep(ctx, s.cfg.Map.Interval.Std())
	}
}

// pulled counts the reading of a source, and logs why it failed.
func (s *Service) pulled(source string, err error) {
	if err == nil {
		s.metrics.pulls.WithLabelValues(source, "ok").Inc()
		s.metrics.lastPull.WithLabelValues(source).SetToCurrentTime()
		return
	}
	s.metrics.pulls.WithLabelValues(source, "failed").Inc()
	s.pullLog.Do(func() {
		s.log.Warn().Err(err).Str("source", source).Msg("not read, everything stays as it is")
	})
}

// readMap reads a map from the user system and has users be as it says.
func (s *Service) readMap(ctx context.Context, from, key string, cursor int64, whole bool) (m userMap, err error) {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	u, err := url.Parse(from)
	if err != nil {
		return m, err
	}
	if cursor > 0 {
		query := u.Query()
		query.Set("last_date", strconv.FormatInt(cursor, 10))
		u.RawQuery = query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return m, err
	}
	s.waiting.reading(true)
	defer s.waiting.reading(false)
	text, err := httpapi.Fetch(s.http, req, maxMap)
	if err != nil {
		return m, err
	}
	if m, err = parseMap(text, key); err != nil {
		s.metrics.invalid.WithLabelValues("map").Inc()
		return m, err
	}
	subPools := key == "user_subpool"
	s.waiting.add(s.choresOf(m, subPools)...)
	if subPools && whole {
		s.waiting.add(s.mainPool(m)...)
	}
	return m, nil
}

// pullTimeout bounds the reading of a map.
const pullTimeout = 30 * time.Second

// choresOf returns what is to be done for nodes to say what a map says.
func (s *Service) choresOf(m userMap, subPools bool) (chores []change) {
	now := time.Now()
	for name, of := range m.of {
		c := change{At: now, Due: now}
		user, f := s.canonical(name)
		good := f == nil
		if c.User = user; subPools {
			c.SubPool = &of
			good = good && (of == "" || userchain.CheckUser(of) == nil)
		} else {
			c.Chain = of
			good = good && (slices.Contains(s.cfg.Chains, of) || of == userchain.Auto && s.cfg.AutoChain.Enabled)
			c.Due, _ = s.lists.safe(user, of, now)
		}
		if !good {
			s.metrics.invalid.WithLabelValues("map_entry").Inc()
			continue
		}
		chores = append(chores, c)
	}
	return chores
}

// mainPool returns chores for known users who are absent in a map of sub-pools: they are of the pool itself.
func (s *Service) mainPool(m userMap) (chores []change) {
	now := time.Now()
	present := make(map[string]bool, len(m.of))
	for name := range m.of {
		if user, f := s.canonical(name); f == nil {
			present[user] = true
		}
	}
	for user := range s.lists.after("", 0) {
		if !present[user] && userchain.CheckUser(user) == nil {
			chores = append(chores, change{User: user, SubPool: new(""), At: now, Due: now})
		}
	}
	return chores
}
