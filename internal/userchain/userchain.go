// Package userchain is what services tell each other of the chain that a user mines: the node that each user has in
// ZooKeeper, the request for a user that is not known, and the command that moves the users in auto mode. The forms are
// btcpool's; docs/formats.md has them.
package userchain

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"btcpool/internal/share"
)

// Auto in the place of a chain: the user mines whatever chain the pool chooses.
const Auto = "auto"

const (
	maxName  = 200     // bytes of a user's name
	maxValue = 8 << 10 // bytes of a node
	maxPUIDs = 64      // chains that a user has ids on
)

var validChain = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,31}$`)

// CheckChain says what is wrong with the name of a chain. It may be Auto.
func CheckChain(chain string) error {
	if !validChain.MatchString(chain) {
		return errors.New("must be 1 to 32 letters, digits and '-'")
	}
	return nil
}

// CheckUser says what is wrong with a user's name, which is to be that of a node: "/" would make it another's.
func CheckUser(name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > maxName:
		return fmt.Errorf("is longer than %d bytes", maxName)
	case name == "." || name == ".." || strings.Contains(name, "/") || share.CleanName(name) != name:
		return errors.New("must be letters, digits and ._:|^-")
	}
	return nil
}

// Value is what a user's node says.
type Value struct {
	Chain string `json:"chain"` // or Auto
	// Subpool is the sub-pool whose coinbase the user mines for; "": the pool's own.
	Subpool string `json:"subpool"`
	// PUIDs are the user's ids by chain. A plain node has none.
	PUIDs map[string]int32 `json:"puids"`
}

// ParseValue reads a node: a chain's name alone, or JSON.
func ParseValue(text []byte) (v Value, err error) {
	if len(text) > maxValue {
		return v, fmt.Errorf("node of %d bytes", len(text))
	}
	plain := strings.TrimSpace(string(text))
	if !strings.HasPrefix(plain, "{") {
		v.Chain = plain
	} else if err := json.Unmarshal(text, &v); err != nil {
		return Value{}, err
	}
	if err := v.check(); err != nil {
		return Value{}, err
	}
	return v, nil
}

func (v Value) check() error {
	if err := CheckChain(v.Chain); err != nil {
		return fmt.Errorf("chain %.40q: %w", v.Chain, err)
	}
	if v.Subpool != "" {
		if err := CheckUser(v.Subpool); err != nil {
			return fmt.Errorf("subpool %.40q: %w", v.Subpool, err)
		}
	}
	if len(v.PUIDs) > maxPUIDs {
		return fmt.Errorf("%d ids", len(v.PUIDs))
	}
	for chain, id := range v.PUIDs {
		if err := CheckChain(chain); err != nil || id <= 0 {
			return fmt.Errorf("id %d on chain %.40q", id, chain)
		}
	}
	return nil
}

// Plain is a node that says the chain only, as all of btcpool's released sservers read it.
func (v Value) Plain() []byte { return []byte(v.Chain) }

// JSON is a node that says everything. The same value is always the same text.
func (v Value) JSON() []byte {
	if v.PUIDs == nil {
		v.PUIDs = map[string]int32{}
	}
	text, _ := json.Marshal(v) // strings and numbers only
	return text
}

// Request is what a server writes into the node of a user that it does not know, for somebody to register the user.
type Request struct {
	SessionID uint32 `json:"SessionID"`
	Worker    string `json:"Worker"` // the whole name that the miner has logged in with
}

// ParseRequest reads a request.
func ParseRequest(text []byte) (r Request, err error) {
	if len(text) > maxValue {
		return r, fmt.Errorf("node of %d bytes", len(text))
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return Request{}, err
	}
	return r, nil
}
