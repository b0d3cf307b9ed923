package upgrade

import "time"

// SetReadyTimeout is ReadyTimeout for one.
func (s *Successor) SetReadyTimeout(d time.Duration) { s.readyIn = d }
