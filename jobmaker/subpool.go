package jobmaker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"golang.org/x/sync/errgroup"

	"btcpool/internal/registry"
)

// maxUpdate is how long the request for an update may be, in bytes.
const maxUpdate = 8192

// subPoolCoinbase is what can be changed of a sub-pool, in btcpool's words.
type subPoolCoinbase struct {
	CoinbaseInfo string `json:"coinbase_info"`
	PayoutAddr   string `json:"payout_addr"` // "": there are several outputs
}

// watchSubPools changes sub-pools as ZooKeeper says, until ctx ends.
func (s *Service) watchSubPools(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, sub := range s.cfg.SubPools {
		if sub.UpdatePath == "" {
			continue
		}
		now := subPoolCoinbase{sub.CoinbaseText, sub.PayoutAddress}
		g.Go(func() error {
			return s.registry.Watch(ctx, sub.UpdatePath, func(request []byte, self registry.Host) []byte {
				return s.updateSubPool(sub.Name, &now, request, self, time.Now())
			})
		})
	}
	return g.Wait()
}

// updateSubPool does what a request says if that can be done, and returns btcpool's answer to it. now is what the
// sub-pool has, and is given.
func (s *Service) updateSubPool(name string, now *subPoolCoinbase, request []byte, self registry.Host, at time.Time) []byte {
	answer := struct {
		CreatedAt string           `json:"created_at"`
		Host      registry.Host    `json:"host"`
		SubPool   string           `json:"subpool_name"`
		Old       subPoolCoinbase  `json:"old"`
		New       *subPoolCoinbase `json:"new,omitempty"`
		Success   bool             `json:"success"`
		Message   string           `json:"err_msg"`
		RequestID string           `json:"request_id,omitempty"`
	}{RequestID: requestID(request), CreatedAt: at.UTC().Format(time.DateTime), Host: self, SubPool: name, Old: *now}

	next, message, err := s.changeSubPool(name, request)
	if err != nil {
		answer.Message = err.Error()
		s.metrics.updates.WithLabelValues(name, "refused").Inc()
		s.log.Warn().Err(err).Str("sub_pool", name).Msg("update of a sub-pool refused")
	} else {
		*now = next
		answer.New, answer.Success, answer.Message = &next, true, message
		s.metrics.updates.WithLabelValues(name, "accepted").Inc()
		s.log.Info().Str("sub_pool", name).Str("payout_address", next.PayoutAddr).Str("coinbase_text", next.CoinbaseInfo).Msg("sub-pool updated")
	}
	text, _ := json.Marshal(answer) // strings and bools only
	return text
}

// changeSubPool lets the jobs to come have what a request asks for.
func (s *Service) changeSubPool(name string, request []byte) (next subPoolCoinbase, message string, err error) {
	if next, err = parseUpdate(request); err != nil {
		return next, "", err
	}
	message = "success"
	if limit := s.cfg.MaxUpdateText; len(next.CoinbaseInfo) > limit {
		next.CoinbaseInfo = next.CoinbaseInfo[:limit]
		message = fmt.Sprintf("success, but coinbase_info was cut to %d bytes", limit)
	}
	if _, err := s.network.PayoutScript(next.PayoutAddr); err != nil {
		return next, "", errors.New("invalid payout address") // in btcpool's words
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	changed := *s.builder.Load()
	c, err := s.cfg.coinbase(changed, s.network, next.PayoutAddr, nil, next.CoinbaseInfo)
	if err != nil {
		return next, "", err
	}
	changed.subPools = maps.Clone(changed.subPools)
	changed.subPools[name] = c
	s.builder.Store(&changed)
	return next, message, nil
}

// requestID returns what tells a request from others, "" if it says nothing of that kind, as btcpool's do not.
func requestID(request []byte) string {
	var r struct {
		ID string `json:"request_id"`
	}
	if len(request) > maxUpdate || json.Unmarshal(request, &r) != nil {
		return ""
	}
	return r.ID
}

// parseUpdate reads a request. It refuses one in btcpool's words.
func parseUpdate(request []byte) (subPoolCoinbase, error) {
	switch {
	case len(request) == 0:
		return subPoolCoinbase{}, errors.New("empty request")
	case len(request) > maxUpdate:
		return subPoolCoinbase{}, fmt.Errorf("request of more than %d bytes", maxUpdate)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(request, &fields); err != nil {
		return subPoolCoinbase{}, err
	}
	var info, addr *string
	if json.Unmarshal(fields["coinbase_info"], &info) != nil || json.Unmarshal(fields["payout_addr"], &addr) != nil || info == nil || addr == nil {
		return subPoolCoinbase{}, errors.New("field missing or wrong field type")
	}
	return subPoolCoinbase{*info, *addr}, nil
}
