package sserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"btcpool/internal/bus"
)

// Management is btcpool's way to ask all servers of a pool at once: commands
// come and replies go through Kafka.
type Management struct {
	Enabled         bool   `toml:"enabled"`
	ControllerTopic string `toml:"controller_topic"` // of commands
	ProcessorTopic  string `toml:"processor_topic"`  // of replies and notifications
}

func (c Config) validateManagement() error {
	m, topics := c.Management, c.Kafka.Topics
	if !m.Enabled {
		return nil
	}
	var errs []error
	taken := map[string]bool{topics.Job: true, topics.Share: true, topics.SolvedShare: true, topics.CommonEvents: true, topics.AuxSolved: true, topics.RSKSolved: true}
	for _, t := range []struct{ key, name string }{{"controller_topic", m.ControllerTopic}, {"processor_topic", m.ProcessorTopic}} {
		if err := bus.CheckTopic(t.name); err != nil {
			errs = append(errs, fmt.Errorf("management.%s = %q: %w", t.key, t.name, err))
		} else if taken[t.name] {
			errs = append(errs, fmt.Errorf("management.%s = %q: is used for something else already", t.key, t.name))
		}
		taken[t.name] = true
	}
	return errors.Join(errs...)
}

const (
	maxCommand = 64 << 10 // bytes
	// commandAge is how old a command may be: who waits for so long has given up.
	commandAge = time.Minute
	// Commands are people's; what comes faster is dropped.
	commandRate, commandBurst = 10, 50
	// maxReplies may wait for Kafka.
	maxReplies = 64
	// replyGrace is what the last notification gets to reach Kafka.
	replyGrace = 3 * time.Second
)

// The vocabulary of the topics.
const (
	typeCommand      = "sserver_cmd"
	typeResponse     = "sserver_response"
	typeNotification = "sserver_notify"

	actionList      = "list"
	actionStatus    = "get_status"
	actionSwitch    = "auto_switch_chain"
	actionOnline    = "online"
	actionOffline   = "offline"
	actionException = "exception"

	// onlyChain is what the chain is called by a server that has no others.
	onlyChain = "default"
)

// command is a message of the controller topic.
type command struct {
	Type   string          `json:"type"`
	Action string          `json:"action"`
	ID     json.RawMessage `json:"id"` // anything: it is echoed
	Filter *commandFilter  `json:"filter"`
}

// commandFilter says which servers a command is for.
type commandFilter struct {
	ServerID  map[string]bool `json:"server_id"` // by id
	Exclusion bool            `json:"exclusion"` // all but those
}

func (f *commandFilter) admits(id uint32) bool {
	return f == nil || f.ServerID[strconv.FormatUint(uint64(id), 10)] != f.Exclusion
}

// Why a message of the controller topic is not answered.
var (
	errForeignMessage = errors.New("is no command for sservers")
	errBadCommand     = errors.New("malformed")
)

func parseCommand(text []byte) (command, error) {
	var c command
	if len(text) > maxCommand {
		return c, errBadCommand
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("%w: %w", errBadCommand, err)
	}
	if c.Type != typeCommand {
		return c, errForeignMessage
	}
	return c, nil
}

// reply is what goes to the processor topic.
type reply struct {
	Type      string          `json:"type"`
	Action    string          `json:"action"`
	ID        json.RawMessage `json:"id,omitempty"`
	CreatedAt string          `json:"created_at"`
	ServerID  uint32          `json:"server_id"`
	Host      hostView        `json:"host"`
	Status    replyStatus     `json:"status"`

	Connections *replyStates    `json:"connections,omitempty"`
	Config      *replyConfig    `json:"config,omitempty"`
	Exception   *replyException `json:"exception,omitempty"`
}

type hostView struct {
	Hostname string              `json:"hostname"`
	IP       map[string][]string `json:"ip"` // by interface
}

type replyStatus struct {
	Uptime      string `json:"uptime"` // the time of the start, in spite of its name
	Connections struct {
		Count int64 `json:"count"`
	} `json:"connections"`
	Chains map[string]replyChain `json:"chains,omitempty"`
}

type replyStates struct {
	State map[string]map[string]int64 `json:"state"` // by chain and state
}

type replyChain struct {
	Name          string           `json:"name"`
	ShareStatus   map[string]int64 `json:"share_status"` // by code
	LastJobTime   string           `json:"last_job_time"`
	LastJobHeight int32            `json:"last_job_height"`
	LastJobID     uint64           `json:"last_job_id"`
}

// replyConfig shows nothing that is secret.
type replyConfig struct {
	SServer struct {
		Listen            []string `json:"listen"`
		MaxConnections    int      `json:"max_connections"`
		DefaultDifficulty float64  `json:"default_difficulty"`
		ShareInterval     string   `json:"share_interval"`
	} `json:"sserver"`
	Chains []struct {
		Name string `json:"name"`
	} `json:"chains"`
	Users struct {
		Source string `json:"source"`
	} `json:"users"`
	Management struct {
		ControllerTopic string `json:"controller_topic"`
		ProcessorTopic  string `json:"processor_topic"`
	} `json:"management"`
}

type replyException struct {
	What string `json:"what"`
}

// management answers commands and tells of the server's comings and goings.
type management struct {
	srv     *Service
	limit   *rate.Limiter
	replies chan []byte
}

func newManagement(srv *Service) *management {
	return &management{srv: srv, limit: rate.NewLimiter(commandRate, commandBurst), replies: make(chan []byte, maxReplies)}
}

// run answers commands until ctx ends, and sends then what is left to say. Those
// that were given before it began are not its own: they may have been executed
// before a restart. Miners do not depend on it.
func (m *management) run(ctx context.Context) {
	var reading sync.WaitGroup
	reading.Go(func() {
		if err := m.read(ctx); ctx.Err() == nil {
			m.srv.log.Error().Err(err).Msg("management commands are no longer answered")
		}
	})
	m.write(ctx)
	reading.Wait()
}

func (m *management) read(ctx context.Context) error {
	cfg := m.srv.cfg.Management
	if err := m.srv.bus.EnsureTopics(ctx, cfg.ControllerTopic, cfg.ProcessorTopic); err != nil {
		return err
	}
	return m.srv.bus.Read(ctx, cfg.ControllerTopic, bus.Latest(), func(msg bus.Message) error {
		m.srv.metrics.commands.WithLabelValues(m.take(msg.Value, msg.Time, time.Now())).Inc()
		return nil
	})
}

// take executes a command and says what came of it.
func (m *management) take(text []byte, sent, now time.Time) (result string) {
	c, err := parseCommand(text)
	id := m.srv.serverID.Load()
	switch {
	case errors.Is(err, errForeignMessage):
		return "foreign"
	case err != nil:
		m.srv.loginLog.Warn().Err(err).Msg("management command not understood")
		return "bad"
	case now.Sub(sent) > commandAge:
		return "old"
	case id == 0 || !c.Filter.admits(id):
		return "for others"
	case !m.limit.AllowN(now, 1):
		return "too many"
	}
	r := m.reply(typeResponse, c.Action, id, now)
	r.ID = c.ID
	switch c.Action {
	case actionList:
	case actionStatus:
		m.detail(&r)
	case actionSwitch: // there is one chain: nothing changes, which is not answered
		return "not applicable"
	default:
		return "unknown"
	}
	m.send(r)
	return "answered"
}

// notify tells what happened to a server. It does not block.
func (m *management) notify(action string, id uint8, exception error) {
	if m == nil {
		return
	}
	r := m.reply(typeNotification, action, uint32(id), time.Now())
	m.detail(&r)
	if exception != nil {
		r.Exception = &replyException{exception.Error()}
	}
	m.send(r)
}

// send does not block: what Kafka does not take in time is nobody's news any more.
func (m *management) send(r reply) {
	text, err := json.Marshal(r)
	if err != nil {
		m.srv.log.Error().Err(err).Msg("management reply not sent")
		return
	}
	select {
	case m.replies <- text:
	default:
		m.srv.metrics.notices.WithLabelValues("dropped").Inc()
	}
}

// write sends replies until ctx ends, and then for a moment those that are left.
func (m *management) write(ctx context.Context) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(replyGrace, cancel) })()
	for {
		var text []byte
		select {
		case text = <-m.replies:
		case <-ctx.Done():
			select {
			case text = <-m.replies:
			default:
				return
			}
		}
		result := "sent"
		if err := m.srv.bus.Write(late, m.srv.cfg.Management.ProcessorTopic, bus.Message{Value: text}); err != nil {
			result = "failed"
			m.srv.log.Warn().Err(err).Msg("management reply not sent")
		}
		m.srv.metrics.notices.WithLabelValues(result).Inc()
	}
}

// reply returns what all replies have.
func (m *management) reply(kind, action string, id uint32, now time.Time) reply {
	r := reply{
		Type:      kind,
		Action:    action,
		CreatedAt: now.UTC().Format(time.DateTime),
		ServerID:  id,
		Host:      thisHost(),
		Status:    replyStatus{Uptime: m.srv.started.UTC().Format(time.DateTime)},
	}
	r.Status.Connections.Count = m.srv.open.Load()
	return r
}

// detail adds what get_status has besides.
func (m *management) detail(r *reply) {
	s := m.srv
	r.Connections = &replyStates{map[string]map[string]int64{onlyChain: s.sessionsByState()}}
	chain := replyChain{Name: onlyChain, ShareStatus: make(map[string]int64)}
	for status, n := range s.sharesByStatus() {
		chain.ShareStatus[strconv.Itoa(int(status))] = n
	}
	if job := s.currentJob(); job != nil {
		chain.LastJobTime, chain.LastJobHeight, chain.LastJobID = job.MadeAt.Format(time.DateTime), job.Height, job.ID
	}
	r.Status.Chains = map[string]replyChain{onlyChain: chain}

	c := new(replyConfig)
	for _, addr := range s.Addrs() {
		c.SServer.Listen = append(c.SServer.Listen, addr.String())
	}
	c.SServer.MaxConnections = s.cfg.MaxConnections
	c.SServer.DefaultDifficulty = s.cfg.DefaultDifficulty
	c.SServer.ShareInterval = s.cfg.ShareInterval.String()
	c.Chains = append(c.Chains, struct {
		Name string `json:"name"`
	}{onlyChain})
	c.Users.Source = s.cfg.Users.Source
	c.Management.ControllerTopic = s.cfg.Management.ControllerTopic
	c.Management.ProcessorTopic = s.cfg.Management.ProcessorTopic
	r.Config = c
}

// thisHost leaves out what the system does not tell.
func thisHost() hostView {
	name, _ := os.Hostname()
	h := hostView{Hostname: name, IP: make(map[string][]string)}
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		addrs, _ := i.Addrs()
		for _, addr := range addrs {
			if ip, ok := addr.(*net.IPNet); ok {
				h.IP[i.Name] = append(h.IP[i.Name], ip.IP.String())
			}
		}
	}
	return h
}
