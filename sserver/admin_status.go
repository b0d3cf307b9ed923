package sserver

import (
	"net/http"
	"time"

	"btcpool/internal/service"
	"btcpool/internal/share"
)

// status is the state of the server in short.
type status struct {
	Version     string           `json:"version"`
	StartedAt   time.Time        `json:"started_at"`
	ServerID    uint32           `json:"server_id"` // 0: none yet
	Ready       bool             `json:"ready"`
	NotReady    *string          `json:"not_ready"` // why
	Connections int64            `json:"connections"`
	Sessions    map[string]int64 `json:"sessions"` // by state
	AgentMiners int64            `json:"agent_miners"`
	Accepted    int64            `json:"accepted"` // shares since the start
	Rejected    int64            `json:"rejected"`
	Job         *jobView         `json:"job"` // that miners work on
	Bans        int              `json:"bans"`
	Drain       string           `json:"drain"`
}

type jobView struct {
	ID     uint64    `json:"id"`
	Height int32     `json:"height"`
	MadeAt time.Time `json:"made_at"`
}

func (a *adminAPI) getStatus(r *http.Request) (any, error) {
	s := a.srv
	v := status{
		Version:     service.Version(),
		StartedAt:   s.started.UTC().Truncate(time.Second),
		ServerID:    s.serverID.Load(),
		Ready:       true,
		Connections: s.open.Load(),
		Sessions:    s.sessionsByState(),
		AgentMiners: s.agentMiners.Load(),
		Job:         s.currentJob(),
		Bans:        s.guard.bans.count(),
		Drain:       a.drainState().State,
	}
	if err := s.Ready(); err != nil {
		v.Ready, v.NotReady = false, new(err.Error())
	}
	counts := s.sharesByStatus()
	v.Accepted = counts[share.StatusAccept]
	delete(counts, share.StatusAccept)
	for _, n := range counts {
		v.Rejected += n
	}
	return v, parseQuery(r).done()
}

func (s *Service) sessionsByState() map[string]int64 {
	counts := make(map[string]int64)
	for p := range phases {
		counts[p.String()] = s.metrics.sessions[p].Load()
	}
	return counts
}

// sharesByStatus leaves out what has not happened, and what was accepted though
// late.
func (s *Service) sharesByStatus() map[share.Status]int64 {
	counts := make(map[share.Status]int64)
	for status, count := range s.metrics.shares {
		if n := count.Load(); n > 0 && status != share.StatusAcceptStale {
			counts[status] = n
		}
	}
	return counts
}

func (s *Service) currentJob() *jobView {
	r := s.jobs.round.Load()
	if r == nil {
		return nil
	}
	return &jobView{uint64(r.work.ID), r.work.Height, r.work.ID.Time().UTC()}
}
