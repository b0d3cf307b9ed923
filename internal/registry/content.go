package registry

import (
	"encoding/json"
	"net"
	"os"
	"time"
)

// content is what btcpool writes into its nodes, for people to read: nobody decides by it.
func (s *session) content(now time.Time) []byte {
	text, _ := json.Marshal(struct {
		UUID      string         `json:"uuid"`
		CreatedAt string         `json:"created_at"`
		Host      Host           `json:"host"`
		Data      map[string]int `json:"data"`
	}{s.uuid, now.UTC().Format(time.DateTime), s.host(), map[string]int{"pid": os.Getpid()}})
	return text
}

func (s *session) host() (h Host) {
	h.Hostname, _ = os.Hostname()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.raw != nil {
		h.IP, _, _ = net.SplitHostPort(s.raw.LocalAddr().String())
	}
	return h
}
