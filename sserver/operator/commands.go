package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"

	"btcpool/internal/bus"
	"btcpool/internal/telemetry"
	"btcpool/internal/userchain"
)

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
	typeAction       = "sserver_action"

	actionList      = "list"
	actionStatus    = "get_status"
	actionSwitch    = "auto_switch_chain"
	actionOnline    = "online"
	actionOffline   = "offline"
	actionException = "exception"
	actionFollowed  = "single_user_switch_chain"

	// authorized is the state of a session that is logged in.
	authorized = "authorized"
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
	*Switch
}

// Switch is what came of a command for users in auto mode, or of the node that all users follow.
type Switch struct {
	Result      bool   `json:"result"`
	Reason      string `json:"reason,omitempty"` // why not
	From        string `json:"old_chain_name"`
	To          string `json:"new_chain_name"`
	Users       int    `json:"switched_users"`
	Connections int    `json:"switched_connections"`
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

// Commands answers commands and tells of the server's comings and goings. A nil one does neither.
type Commands struct {
	srv     Server
	cfg     CommandsConfig
	bus     *bus.Client
	log     zerolog.Logger
	rarely  zerolog.Logger // for lines that others can cause by the thousand
	limit   *rate.Limiter
	replies chan []byte

	taken, sent *prometheus.CounterVec // result
}

// NewCommands returns what answers the commands of cfg's topics.
func NewCommands(cfg CommandsConfig, srv Server, client *bus.Client, deps telemetry.Deps) *Commands {
	m := telemetry.Metrics(deps.Metrics, "sserver")
	return &Commands{
		srv:     srv,
		cfg:     cfg,
		bus:     client,
		log:     deps.Log,
		rarely:  deps.Log.Sample(&zerolog.BurstSampler{Burst: 10, Period: time.Minute}),
		limit:   rate.NewLimiter(commandRate, commandBurst),
		replies: make(chan []byte, maxReplies),
		taken:   m.Counters("management_commands_total", "Messages of the management topic.", "result"),
		sent:    m.Counters("management_replies_total", "Replies to management commands, and notifications.", "result"),
	}
}

// Run answers commands until ctx ends, and sends then what is left to say. Those that were given before it began are
// not its own: they may have been executed before a restart. Miners do not depend on it.
func (m *Commands) Run(ctx context.Context) {
	var reading sync.WaitGroup
	reading.Go(func() {
		if err := m.read(ctx); ctx.Err() == nil {
			m.log.Error().Err(err).Msg("management commands are no longer answered")
		}
	})
	m.write(ctx)
	reading.Wait()
}

func (m *Commands) read(ctx context.Context) error {
	if err := m.bus.EnsureTopics(ctx, m.cfg.ControllerTopic, m.cfg.ProcessorTopic); err != nil {
		return err
	}
	return m.bus.Read(ctx, m.cfg.ControllerTopic, bus.Latest(), func(msg bus.Message) error {
		m.taken.WithLabelValues(m.take(msg.Value, msg.Time, time.Now())).Inc()
		return nil
	})
}

// take executes a command and says what came of it.
func (m *Commands) take(text []byte, sent, now time.Time) (result string) {
	c, err := parseCommand(text)
	server := m.srv.Status()
	id := server.ServerID
	switch {
	case errors.Is(err, errForeignMessage):
		return "foreign"
	case err != nil:
		m.rarely.Warn().Err(err).Msg("management command not understood")
		return "bad"
	case !sent.IsZero() && now.Sub(sent) > commandAge:
		return "old"
	case id == 0 || !c.Filter.admits(id):
		return "for others"
	case !m.limit.AllowN(now, 1):
		return "too many"
	}
	r := m.reply(typeResponse, c.Action, server, now)
	r.ID = c.ID
	switch c.Action {
	case actionList:
	case actionStatus:
		m.detail(&r, server)
	case actionSwitch:
		r.Switch = m.switchAuto(text)
	default:
		return "unknown"
	}
	m.send(r)
	return "answered"
}

// switchAuto executes a command for users in auto mode.
func (m *Commands) switchAuto(text []byte) *Switch {
	c, err := userchain.ParseSwitchCommand(text)
	if err != nil {
		return &Switch{Reason: err.Error()}
	}
	id := ""
	if c.ID != 0 {
		id = strconv.FormatUint(c.ID, 10)
	}
	done, err := m.srv.SwitchAuto(id, c.Shares)
	s := &Switch{Result: err == nil, From: done.From, To: done.To, Users: done.Users, Connections: done.Connections}
	if err != nil {
		s.Reason = err.Error()
	}
	return s
}

// Online tells that the server has an id and is there.
func (m *Commands) Online() { m.notify(actionOnline, nil) }

// Offline tells that the server is about to give its id up.
func (m *Commands) Offline() { m.notify(actionOffline, nil) }

// Exception tells what went wrong.
func (m *Commands) Exception(what error) { m.notify(actionException, what) }

// Followed tells that users have followed the node of the one who stands for all, if any have.
func (m *Commands) Followed(done Switched) {
	if m == nil || done.Users == 0 {
		return
	}
	r := m.reply(typeAction, actionFollowed, m.srv.Status(), time.Now())
	r.ID = json.RawMessage("null")
	r.Switch = &Switch{Result: true, From: done.From, To: done.To, Users: done.Users, Connections: done.Connections}
	m.send(r)
}

// notify does not block.
func (m *Commands) notify(action string, exception error) {
	if m == nil {
		return
	}
	server := m.srv.Status()
	r := m.reply(typeNotification, action, server, time.Now())
	m.detail(&r, server)
	if exception != nil {
		r.Exception = &replyException{exception.Error()}
	}
	m.send(r)
}

// send does not block: what Kafka does not take in time is nobody's news any more.
func (m *Commands) send(r reply) {
	text, err := json.Marshal(r)
	if err != nil {
		m.log.Error().Err(err).Msg("management reply not sent")
		return
	}
	select {
	case m.replies <- text:
	default:
		m.sent.WithLabelValues("dropped").Inc()
	}
}

// write sends replies until ctx ends, and then for a moment those that are left.
func (m *Commands) write(ctx context.Context) {
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
		if err := m.bus.Write(late, m.cfg.ProcessorTopic, bus.Message{Value: text}); err != nil {
			result = "failed"
			m.log.Warn().Err(err).Msg("management reply not sent")
		}
		m.sent.WithLabelValues(result).Inc()
	}
}

// reply returns what all replies have.
func (m *Commands) reply(kind, action string, server Status, now time.Time) reply {
	r := reply{
		Type:      kind,
		Action:    action,
		CreatedAt: now.UTC().Format(time.DateTime),
		ServerID:  server.ServerID,
		Host:      thisHost(),
		Status:    replyStatus{Uptime: server.Started.UTC().Format(time.DateTime)},
	}
	r.Status.Connections.Count = server.Connections
	return r
}

// detail adds what get_status has besides.
func (m *Commands) detail(r *reply, server Status) {
	r.Connections = &replyStates{make(map[string]map[string]int64)}
	r.Status.Chains = make(map[string]replyChain)
	chains := server.Chains
	if len(chains) == 0 {
		chains = []Chain{{Name: onlyChain, Sessions: server.Sessions[authorized], Shares: server.Shares, Job: server.Job}}
	}
	c := new(replyConfig)
	for i, of := range chains {
		states := map[string]int64{authorized: of.Sessions}
		if i == 0 { // a session that is not logged in belongs to none yet
			maps.Copy(states, server.Sessions)
			states[authorized] = of.Sessions
		}
		r.Connections.State[of.Name] = states
		chain := replyChain{Name: of.Name, ShareStatus: make(map[string]int64)}
		for status, n := range of.Shares {
			chain.ShareStatus[strconv.Itoa(int(status))] = n
		}
		if job := of.Job; job != nil {
			chain.LastJobTime, chain.LastJobHeight, chain.LastJobID = job.MadeAt.UTC().Format(time.DateTime), job.Height, job.ID
		}
		r.Status.Chains[of.Name] = chain
		c.Chains = append(c.Chains, struct {
			Name string `json:"name"`
		}{of.Name})
	}
	c.SServer.Listen = server.Listen
	c.SServer.MaxConnections = server.MaxConnections
	c.SServer.DefaultDifficulty = server.DefaultDifficulty
	c.SServer.ShareInterval = server.ShareInterval.String()
	c.Users.Source = server.Users
	c.Management.ControllerTopic = m.cfg.ControllerTopic
	c.Management.ProcessorTopic = m.cfg.ProcessorTopic
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
