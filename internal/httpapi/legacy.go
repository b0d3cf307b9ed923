package httpapi

import (
	"fmt"
	"time"
)

// Legacy is the envelope of btcpool's own answers, which come with status 200
// whatever they say.
type Legacy struct {
	ErrNo  int    `json:"err_no"`
	ErrMsg string `json:"err_msg"`
	Data   any    `json:"data,omitempty"`
}

// LegacyUptime is a duration as btcpool's status answers write it.
func LegacyUptime(d time.Duration) string {
	s := int64(d.Seconds())
	return fmt.Sprintf("%04d d %02d h %02d m %02d s", s/86400, s/3600%24, s/60%60, s%60)
}
