package operator

import (
	"net/http"
	"time"

	"btcpool/internal/service"
	"btcpool/internal/share"
)

// statusView is the state of the server as JSON.
type statusView struct {
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
	Job         *Job             `json:"job"`    // that miners work on
	Chains      []chainView      `json:"chains"` // none: there is one, without a name
	Bans        int              `json:"bans"`
	Drain       string           `json:"drain"`
}

// chainView is one of several chains as JSON.
type chainView struct {
	Chain
	Ready    bool    `json:"ready"`
	NotReady *string `json:"not_ready"` // why
}

func (a *API) getStatus(r *http.Request) (any, error) {
	s := a.srv.Status()
	v := statusView{
		Version:     service.Version(),
		StartedAt:   s.Started.UTC().Truncate(time.Second),
		ServerID:    s.ServerID,
		Ready:       s.NotReady == nil,
		Connections: s.Connections,
		Sessions:    s.Sessions,
		AgentMiners: s.AgentMiners,
		Job:         s.Job,
		Bans:        a.srv.Guard().Bans.Len(),
		Drain:       a.drainState().State,
	}
	v.Chains = []chainView{}
	if s.NotReady != nil {
		v.NotReady = new(s.NotReady.Error())
	}
	for _, c := range s.Chains {
		of := chainView{Chain: c, Ready: c.NotReady == nil}
		if !of.Ready {
			of.NotReady = new(c.NotReady.Error())
		}
		v.Chains = append(v.Chains, of)
	}
	for status, n := range s.Shares {
		if status == share.StatusAccept {
			v.Accepted = n
		} else {
			v.Rejected += n
		}
	}
	return v, parseQuery(r).Done()
}
