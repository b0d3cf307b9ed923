package operator

import (
	"net/http"
	"strings"
	"time"
	"unicode"

	"btcpool/internal/config"
	"btcpool/internal/guard"
)

const (
	// minBanBits keeps a slip of the pen from banning the world.
	minBanBits   = 8
	maxBanTime   = 10 * 365 * 24 * time.Hour
	maxBanReason = 200 // bytes
)

// getBans lists bans, those that end first first.
func (a *API) getBans(r *http.Request) (any, error) {
	q := parseQuery(r)
	offset := q.Integer("offset", 0, 0, guard.MaxBans)
	limit := q.Integer("limit", pageSize, 1, maxPageSize)
	if err := q.Done(); err != nil {
		return nil, err
	}
	bans := a.srv.Guard().Bans.List(time.Now())
	total := len(bans)
	bans = bans[min(offset, total):]
	return struct {
		Total int         `json:"total"`
		Bans  []guard.Ban `json:"bans"`
	}{total, bans[:min(limit, len(bans))]}, nil
}

// addBan bans addresses, and ends the sessions that are there.
func (a *API) addBan(r *http.Request) (any, error) {
	order, err := body[struct {
		Prefix   string          `json:"prefix"`
		Duration config.Duration `json:"duration"`
		Reason   string          `json:"reason"`
	}](r)
	if err != nil {
		return nil, err
	}
	prefix, err := parseNetwork(order.Prefix)
	switch d := order.Duration.Std(); {
	case err != nil || prefix.Bits() < minBanBits:
		return nil, badRequest("prefix = %.60q: must be an address or a network of %d bits or more", order.Prefix, minBanBits)
	case d < time.Second || d > maxBanTime:
		return nil, badRequest("duration = %q: must be 1s to %s", order.Duration, maxBanTime)
	case len(order.Reason) > maxBanReason || strings.ContainsFunc(order.Reason, unicode.IsControl):
		return nil, badRequest("reason: must be at most %d bytes in one line", maxBanReason)
	}
	if exempt, ok := a.srv.Guard().Exempt(prefix); ok {
		return nil, conflict("%s is in %s, which limits.exempt keeps from being banned", prefix, exempt)
	}
	b := guard.Ban{Prefix: prefix, Until: time.Now().Add(order.Duration.Std()).UTC().Truncate(time.Second), Reason: order.Reason}
	if err := a.srv.Guard().Bans.Add(b); err != nil {
		return nil, conflict("%v", err)
	}
	a.srv.CountBan()
	n := 0
	_, err = a.act(r, filter{network: prefix}, func(s Session) {
		if a.srv.Guard().Watches(s.Address()) {
			n++
			s.Ban()
		}
	})
	return struct {
		guard.Ban
		Sessions int `json:"sessions"` // that were ended
	}{b, n}, err
}

// liftBan ends a ban.
func (a *API) liftBan(r *http.Request) (any, error) {
	q := parseQuery(r)
	text := q.Text("prefix", "", maxText)
	if err := q.Done(); err != nil {
		return nil, err
	}
	prefix, err := parseNetwork(text)
	if err != nil {
		return nil, badRequest("prefix = %.60q: must be an address or a network", text)
	}
	if !a.srv.Guard().Bans.Lift(prefix) {
		return nil, notFound("exactly these addresses are not banned: %s", prefix)
	}
	return struct {
		Lifted string `json:"lifted"`
	}{prefix.String()}, nil
}
