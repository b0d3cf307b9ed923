package switcher

import (
	"context"
	"net/http"
	"net/http/pprof"
	"time"

	"btcpool/internal/config"
	"btcpool/internal/httpapi"
	"btcpool/internal/service"
)

// Status is what the service says of itself. It has no names of users.
type Status struct {
	Version     string         `json:"version"`
	Started     time.Time      `json:"started"`
	ServerID    uint8          `json:"server_id"`
	Connections int64          `json:"connections"`
	Phases      map[string]int `json:"phases"`
	Chains      []ChainStatus  `json:"chains"`
	// ZooKeeper is what is wrong with it; "": nothing.
	ZooKeeper     string `json:"zookeeper"`
	Registrations int    `json:"registrations"`
}

// ChainStatus is a part of it.
type ChainStatus struct {
	Name     string         `json:"name"`
	Sessions int            `json:"sessions"`
	Servers  []ServerStatus `json:"servers"`
}

// ServerStatus is a part of it.
type ServerStatus struct {
	Addr  string    `json:"addr"`
	Since time.Time `json:"since"` // it is so
	// Fault is why it is of no use; "": it is.
	Fault string `json:"fault"`
}

const statusTimeout = 2 * time.Second

func (s *Service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), statusTimeout)
		defer cancel()
		httpapi.Write(w, http.StatusOK, s.Status(ctx))
	})
	if config.IsLoopback(s.cfg.Status) {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// Status returns how the service is; what its loops do not say before ctx ends is missing.
func (s *Service) Status(ctx context.Context) Status {
	st := Status{
		Version: service.Version(), Started: s.started, ServerID: s.id(), Connections: s.open.Load(),
		Phases: make(map[string]int), Registrations: s.registrations.Waiting(),
	}
	if err := s.users.Fault(); err != nil {
		st.ZooKeeper = err.Error()
	}
	on := make(map[*chain]int)
	for _, l := range s.loops {
		_ = l.Call(ctx, func() {
			for _, n := range l.sessions {
				st.Phases[n.Phase.String()]++
				on[n.counted]++
			}
		})
	}
	for _, c := range s.chains {
		cs := ChainStatus{Name: c.Name, Sessions: on[c]}
		for _, server := range c.servers {
			ss := ServerStatus{Addr: server.Addr}
			server.mu.Lock()
			if ss.Since = server.since; server.err != nil {
				ss.Fault = server.err.Error()
			}
			server.mu.Unlock()
			cs.Servers = append(cs.Servers, ss)
		}
		st.Chains = append(st.Chains, cs)
	}
	return st
}
