package share

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// Action is what happened to a miner's connection.
type Action string

// The actions.
const (
	MinerConnect Action = "miner_connect"
	MinerDead    Action = "miner_dead"
	// ServerDead: all sessions of a server are over. Of an Event's texts and ids only SessionID counts.
	ServerDead Action = "server_dead"
	// ServerServing: a process serves as a server. SessionID, Instance and Epoch count.
	ServerServing Action = "server_serving"
)

// isServer tells whether an event is of a server, not of a miner.
func (a Action) isServer() bool { return a == ServerDead || a == ServerServing }

// FromAgent is the Desc of miners behind a farm proxy. IP and SessionID are the proxy's.
const FromAgent = "from_btcagent"

// ErrEvent says that a message is no common event this package knows. Its topic may carry others: readers skip them.
var ErrEvent = errors.New("not a worker event")

// Event tells that a worker came or went, or what a server does.
type Event struct {
	Time       time.Time // whole seconds, UTC
	Action     Action
	UserID     int32
	UserName   string
	WorkerID   int64
	WorkerName string // without the user
	Agent      string // the miner's software, as it says
	IP         netip.Addr
	SessionID  uint32 // its highest byte is the server's id
	Desc       string // new_conn, del_conn, FromAgent, switch_chain
	ExtUserID  int32  // see Share.ExtUserID
	Instance   string // names the process
	Epoch      uint32 // of its shares now
}

const (
	eventType       = "worker_update"
	serverType      = "server_update" // which btcpool does not know
	eventTimeLayout = "2006-01-02 15:04:05"
)

// The JSON, keys in btcpool's order. Pointers tell the keys a reader cannot do without.
type (
	eventJSON struct {
		CreatedAt string       `json:"created_at"`
		Type      string       `json:"type"`
		Action    Action       `json:"action"`
		Content   eventContent `json:"content"`
	}
	eventContent struct {
		UserID     *int32  `json:"user_id"`
		UserName   string  `json:"user_name"`
		WorkerID   *int64  `json:"worker_id"`
		WorkerName *string `json:"worker_name"`
		Agent      *string `json:"miner_agent"`
		IP         string  `json:"ip"`
		SessionID  string  `json:"session_id"`
		Desc       string  `json:"desc"`
		ExtUserID  int32   `json:"ext_user_id,omitempty"`
		Instance   string  `json:"instance,omitempty"`
		Epoch      uint32  `json:"epoch,omitempty"`
	}
)

// AppendTo appends e as a Kafka message value. Texts that are not UTF-8 are mended.
func (e *Event) AppendTo(dst []byte) []byte {
	var ip string
	if e.IP.IsValid() {
		ip = e.IP.Unmap().WithZone("").String()
	}
	buf := bytes.NewBuffer(dst)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false) // btcpool does not undo \u escapes
	kind := eventType
	if e.Action.isServer() {
		kind = serverType
	}
	// Strings and integers always encode.
	_ = enc.Encode(eventJSON{
		CreatedAt: e.Time.UTC().Format(eventTimeLayout),
		Type:      kind,
		Action:    e.Action,
		Content: eventContent{
			UserID:     &e.UserID,
			UserName:   e.UserName,
			WorkerID:   &e.WorkerID,
			WorkerName: &e.WorkerName,
			Agent:      &e.Agent,
			IP:         ip,
			SessionID:  fmt.Sprintf("%08x", e.SessionID),
			Desc:       e.Desc,
			ExtUserID:  e.ExtUserID,
			Instance:   e.Instance,
			Epoch:      e.Epoch,
		},
	})
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

// ParseEvent reads a Kafka message value.
func ParseEvent(src []byte) (Event, error) {
	var in eventJSON
	if err := json.Unmarshal(src, &in); err != nil {
		return Event{}, fmt.Errorf("%w: %w", ErrEvent, err)
	}
	switch {
	case in.Type == eventType && (in.Action == MinerConnect || in.Action == MinerDead):
	case in.Type == serverType && in.Action.isServer():
	default:
		return Event{}, fmt.Errorf("%w: type %.32q, action %.32q", ErrEvent, in.Type, in.Action)
	}
	c := &in.Content
	if c.UserID == nil || c.WorkerID == nil || c.WorkerName == nil || c.Agent == nil {
		return Event{}, fmt.Errorf("%w: user_id, worker_id, worker_name or miner_agent is missing", ErrEvent)
	}
	created, err := time.Parse(eventTimeLayout, in.CreatedAt)
	if err != nil {
		return Event{}, fmt.Errorf("%w: created_at: %w", ErrEvent, err)
	}
	e := Event{
		Time:       created,
		Action:     in.Action,
		UserID:     *c.UserID,
		UserName:   c.UserName,
		WorkerID:   *c.WorkerID,
		WorkerName: *c.WorkerName,
		Agent:      *c.Agent,
		Desc:       c.Desc,
		ExtUserID:  c.ExtUserID,
		Instance:   c.Instance,
		Epoch:      c.Epoch,
	}
	if c.IP != "" {
		ip, err := netip.ParseAddr(c.IP)
		if err != nil {
			return Event{}, fmt.Errorf("%w: ip: %w", ErrEvent, err)
		}
		e.IP = ip.Unmap().WithZone("")
	}
	if c.SessionID != "" {
		id, err := strconv.ParseUint(c.SessionID, 16, 32)
		if err != nil {
			return Event{}, fmt.Errorf("%w: session_id: %w", ErrEvent, err)
		}
		e.SessionID = uint32(id)
	}
	return e, nil
}
