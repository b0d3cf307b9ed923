package userchain

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// The vocabulary of the topics of commands and of what servers say to them.
const (
	typeCommand  = "sserver_cmd"
	typeResponse = "sserver_response"
	typeNotify   = "sserver_notify"
	actionSwitch = "auto_switch_chain"
	actionOnline = "online"

	maxMessage = 1 << 20 // bytes: the full status of a server comes by the same topic
)

// SwitchCommand tells servers what the users in auto mode are to mine.
type SwitchCommand struct {
	ID uint64 // grows; a server that has done it already says so
	At time.Time
	// Shares by chain. A server that does not know of them has all mine the largest.
	Shares Shares
}

// Encode returns the message for the topic of commands.
func (c SwitchCommand) Encode() []byte {
	text, _ := json.Marshal(struct {
		ID        uint64 `json:"id"`
		Type      string `json:"type"`
		Action    string `json:"action"`
		CreatedAt string `json:"created_at"`
		ChainName string `json:"chain_name"`
		Shares    Shares `json:"shares,omitempty"`
	}{c.ID, typeCommand, actionSwitch, c.At.UTC().Format(time.DateTime), c.Shares.Largest(), c.Shares}) // strings and finite numbers
	return text
}

// ErrForeign is a message that is not about the users in auto mode.
var ErrForeign = errors.New("is about something else")

// ParseSwitchCommand reads a message of the topic of commands. Without shares all users mine the chain that it names.
func ParseSwitchCommand(text []byte) (c SwitchCommand, err error) {
	if len(text) > maxMessage {
		return c, fmt.Errorf("message of %d bytes", len(text))
	}
	var m struct {
		ID        json.RawMessage `json:"id"`
		Type      string          `json:"type"`
		Action    string          `json:"action"`
		CreatedAt string          `json:"created_at"`
		ChainName string          `json:"chain_name"`
		Shares    Shares          `json:"shares"`
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return c, err
	}
	if m.Type != typeCommand || m.Action != actionSwitch {
		return c, ErrForeign
	}
	c.ID, _ = strconv.ParseUint(string(m.ID), 10, 64)                    // anybody's id may be anything
	c.At, _ = time.ParseInLocation(time.DateTime, m.CreatedAt, time.UTC) // nobody decides by it
	if c.Shares = m.Shares; c.Shares == nil {
		c.Shares = Shares{m.ChainName: 1}
	}
	if err := c.Shares.Check(); err != nil {
		return SwitchCommand{}, err
	}
	return c, nil
}

// Notice is what a server says that commands are for.
type Notice struct {
	ServerID uint32
	Online   bool // it has just started and knows nothing yet
	// Response to a command, by its id: Done, or Reason says why not.
	Response bool
	ID       uint64
	Done     bool
	Reason   string
	Chain    string
}

// ParseNotice reads a message of the topic of servers' words.
func ParseNotice(text []byte) (n Notice, err error) {
	if len(text) > maxMessage {
		return n, fmt.Errorf("message of %d bytes", len(text))
	}
	var m struct {
		Type     string          `json:"type"`
		Action   string          `json:"action"`
		ID       json.RawMessage `json:"id"`
		ServerID uint32          `json:"server_id"`
		Result   bool            `json:"result"`
		Reason   string          `json:"reason"`
		Chain    string          `json:"new_chain_name"`
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return n, err
	}
	switch {
	case m.Type == typeNotify && m.Action == actionOnline:
		return Notice{ServerID: m.ServerID, Online: true}, nil
	case m.Type == typeResponse && m.Action == actionSwitch:
		n = Notice{ServerID: m.ServerID, Response: true, Done: m.Result, Reason: m.Reason, Chain: m.Chain}
		n.ID, _ = strconv.ParseUint(string(m.ID), 10, 64) // that of another's command may be anything
		return n, nil
	}
	return n, ErrForeign
}
