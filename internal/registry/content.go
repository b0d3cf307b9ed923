package registry

import (
	"encoding/json"
	"net"
	"os"
	"time"
)

// content is what btcpool writes into its nodes, for people to read: nobody
// decides by it.
func (s *session) content(now time.Time) []byte {
	type data struct {
		PID int `json:"pid"`
	}
	text, _ := json.Marshal(struct {
		UUID      string `json:"uuid"`
		CreatedAt string `json:"created_at"`
		Host      Host   `json:"host"`
		Data      data   `json:"data"`
	}{s.uuid, now.UTC().Format(time.DateTime), s.host(), data{os.Getpid()}})
	return text
}

// localIP is the address by which we reach ZooKeeper, "" if we do not.
func (s *session) localIP() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.raw == nil {
		return ""
	}
	ip, _, _ := net.SplitHostPort(s.raw.LocalAddr().String())
	return ip
}
