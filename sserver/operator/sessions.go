package operator

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"btcpool/internal/bitcoin"
)

const (
	pageSize    = 100
	maxPageSize = 1000
	maxText     = 300 // bytes of a parameter
	// maxMessage is what a miner's small display may be expected to take, in bytes.
	maxMessage = 500
)

// selection says which sessions are meant: those that all given fields are true of. Names are whole, upper and lower
// case as they are stored.
type selection struct {
	Session string `json:"session"`
	User    string `json:"user"`
	Worker  string `json:"worker"`  // without the user's name; of an agent's miners too
	Address string `json:"address"` // or a network
	Agent   string `json:"agent"`   // part of it, upper and lower case the same
	All     bool   `json:"all"`     // none of the above
}

// filter is a selection that is well formed.
type filter struct {
	one          bool
	id           uint32
	user, worker string
	network      netip.Prefix // not valid: any
	agent        string       // lower case
}

func (s selection) filter() (f filter, err error) {
	f = filter{user: s.User, worker: s.Worker, agent: strings.ToLower(s.Agent)}
	if s.Session != "" {
		f.one = true
		if f.id, err = parseSessionID(s.Session); err != nil {
			return f, err
		}
	}
	if s.Address != "" {
		if f.network, err = parseNetwork(s.Address); err != nil {
			return f, badRequest("address = %.60q: must be an address or a network", s.Address)
		}
	}
	return f, nil
}

// target is the filter of those whom something is done to: nobody is to hit all by forgetting a field.
func (s selection) target() (filter, error) {
	if none := (s == selection{All: s.All}); none != s.All {
		return filter{}, badRequest(`name at least one of session, user, worker, address and agent, or only "all": true`)
	}
	return s.filter()
}

func parseSessionID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 16, 32)
	if err != nil || len(text) != 8 {
		return 0, badRequest("session %.20q: must be 8 hex digits", text)
	}
	return uint32(id), nil
}

// parseNetwork reads an address too, as a network of one.
func parseNetwork(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err == nil && p.Addr().Is4In6() {
		err = errors.New("is IPv4 written as IPv6")
	}
	return p.Masked(), err
}

func (f *filter) meets(s Session) bool {
	switch {
	case f.one && s.ID() != f.id:
		return false
	case f.network.IsValid() && !f.network.Contains(s.Address()):
		return false
	case f.agent != "" && !strings.Contains(strings.ToLower(s.Software()), f.agent):
		return false
	case f.user == "" && f.worker == "":
		return true
	}
	for user, worker := range s.Workers() {
		if f.names(user, worker) {
			return true
		}
	}
	return false
}

func (f *filter) names(user, worker string) bool {
	return (f.user == "" || user == f.user) && (f.worker == "" || worker == f.worker)
}

// sessionView is a session as JSON.
type sessionView struct {
	ID          string      `json:"id"`
	State       string      `json:"state"`
	Chain       string      `json:"chain"` // of several; else ""
	SubPool     string      `json:"sub_pool"`
	Address     string      `json:"address"`
	Listener    string      `json:"listener"`
	Agent       string      `json:"agent"`
	Workers     []string    `json:"workers"`
	Difficulty  json.Number `json:"difficulty"`
	Fixed       bool        `json:"fixed"`
	Accepted    uint32      `json:"accepted"`
	Rejected    uint32      `json:"rejected"`
	ConnectedAt time.Time   `json:"connected_at"`
	LastShareAt *time.Time  `json:"last_share_at"`
	Miners      *int        `json:"miners"` // behind an agent; nil: it is none
}

type minerView struct {
	Number      uint16      `json:"number"`
	Worker      string      `json:"worker"`
	Agent       string      `json:"agent"`
	Difficulty  json.Number `json:"difficulty"`
	Fixed       bool        `json:"fixed"`
	Accepted    uint32      `json:"accepted"`
	Rejected    uint32      `json:"rejected"`
	LastShareAt *time.Time  `json:"last_share_at"`
}

func newSessionView(s View) sessionView {
	v := sessionView{
		ID:          sessionID(s.ID),
		State:       s.State,
		Chain:       s.Chain,
		SubPool:     s.SubPool,
		Address:     s.Address.String(),
		Listener:    s.Listener,
		Agent:       s.Software,
		Workers:     []string{},
		Difficulty:  number(s.Miner.Difficulty),
		Fixed:       s.Miner.Fixed,
		Accepted:    s.Miner.Accepted,
		Rejected:    s.Miner.Rejected,
		ConnectedAt: s.ConnectedAt.UTC().Truncate(time.Second),
		LastShareAt: orNull(s.Miner.LastShareAt),
		Miners:      s.Miners,
	}
	for _, w := range s.Workers {
		v.Workers = append(v.Workers, w.fullName())
	}
	return v
}

func sessionID(id uint32) string { return fmt.Sprintf("%08x", id) }

func number(d bitcoin.Difficulty) json.Number { return json.Number(d.AppendTo(nil)) }

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}

// getSessions lists sessions by their ids, a page at a time.
func (a *API) getSessions(r *http.Request) (any, error) {
	q := parseQuery(r)
	f, err := selection{
		User:    q.Text("user", "", maxText),
		Worker:  q.Text("worker", "", maxText),
		Address: q.Text("address", "", maxText),
		Agent:   q.Text("agent", "", maxText),
	}.filter()
	if err != nil {
		return nil, err
	}
	after, behind := uint32(0), q.Has("after")
	if behind {
		if after, err = parseSessionID(q.Text("after", "", maxText)); err != nil {
			return nil, err
		}
	}
	limit := q.Integer("limit", pageSize, 1, maxPageSize)
	if err := q.Done(); err != nil {
		return nil, err
	}

	var page []uint32
	total := 0
	if err := a.srv.Visit(r.Context(), func(s Session) {
		if f.meets(s) {
			total++
			if !behind || s.ID() > after {
				page = append(page, s.ID())
			}
		}
	}); err != nil {
		return nil, err
	}
	slices.Sort(page)
	answer := struct {
		Total    int           `json:"total"` // that match, on all pages
		Next     *string       `json:"next"`  // after, for the next page
		Sessions []sessionView `json:"sessions"`
	}{Total: total, Sessions: []sessionView{}}
	if len(page) > limit {
		page = page[:limit]
		answer.Next = new(sessionID(page[limit-1]))
	}
	err = a.srv.Visit(r.Context(), func(s Session) {
		if _, shown := slices.BinarySearch(page, s.ID()); shown {
			answer.Sessions = append(answer.Sessions, newSessionView(s.View()))
		}
	})
	slices.SortFunc(answer.Sessions, func(a, b sessionView) int { return strings.Compare(a.ID, b.ID) })
	return answer, err
}

// one has look look at the session that the path names.
func (a *API) one(r *http.Request, look func(Session)) error {
	id, err := parseSessionID(r.PathValue("id"))
	if err != nil {
		return err
	}
	_, err = a.act(r, filter{one: true, id: id}, look)
	return err
}

func (a *API) getSession(r *http.Request) (any, error) {
	if err := parseQuery(r).Done(); err != nil {
		return nil, err
	}
	type userView struct {
		Name string `json:"name"`
		ID   int32  `json:"id"`
	}
	var answer struct {
		sessionView
		Users             []userView  `json:"users"`
		MinimumDifficulty json.Number `json:"minimum_difficulty"`
		VersionMask       string      `json:"version_mask"`
		Jobs              int         `json:"jobs"` // that it may send shares for
		UnsentBytes       int         `json:"unsent_bytes"`
	}
	answer.Users = []userView{}
	return &answer, a.one(r, func(s Session) {
		v := s.View()
		answer.sessionView = newSessionView(v)
		for _, w := range v.Workers {
			if u := (userView{w.User, w.UserID}); !slices.Contains(answer.Users, u) {
				answer.Users = append(answer.Users, u)
			}
		}
		answer.MinimumDifficulty = number(v.Floor)
		answer.VersionMask = fmt.Sprintf("%08x", v.VersionMask)
		answer.Jobs, answer.UnsentBytes = v.Jobs, v.UnsentBytes
	})
}

// getMiners lists the miners of an agent by their numbers, a page at a time.
func (a *API) getMiners(r *http.Request) (any, error) {
	q := parseQuery(r)
	after := q.Integer("after", -1, 0, math.MaxUint16)
	limit := q.Integer("limit", pageSize, 1, maxPageSize)
	if err := q.Done(); err != nil {
		return nil, err
	}
	var (
		miners []Miner
		total  int
		farm   bool
	)
	if err := a.one(r, func(s Session) { miners, total, farm = s.Miners(after, limit+1) }); err != nil {
		return nil, err
	}
	if !farm {
		return nil, notFound("the session is no agent's")
	}
	answer := struct {
		Total  int         `json:"total"`
		Next   *int        `json:"next"`
		Miners []minerView `json:"miners"`
	}{Total: total, Miners: []minerView{}}
	if len(miners) > limit {
		miners = miners[:limit]
		answer.Next = new(int(miners[limit-1].Number))
	}
	for _, m := range miners {
		answer.Miners = append(answer.Miners, minerView{
			Number:      m.Number,
			Worker:      m.Worker.fullName(),
			Agent:       m.Software,
			Difficulty:  number(m.Difficulty),
			Fixed:       m.Fixed,
			Accepted:    m.Accepted,
			Rejected:    m.Rejected,
			LastShareAt: orNull(m.LastShareAt),
		})
	}
	return &answer, nil
}
