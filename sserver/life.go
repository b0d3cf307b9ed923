package sserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"btcpool/internal/durable"
	"btcpool/internal/share"
)

// serving is the file that holds the id as which miners are served, for as long as they are. One that is found at the
// start is of a life that did not end well: nobody said that its miners have gone.
func (s *Service) serving() string { return filepath.Join(s.cfg.DataDir, "serving") }

// beginLife says that the sessions of an earlier life are over, if there was one that could not.
func (s *Service) beginLife(id uint8) error {
	text, err := os.ReadFile(s.serving())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if before, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 8); err == nil {
		for _, c := range s.chains {
			c.events.add(share.Event{Time: time.Now(), Action: share.ServerDead, SessionID: uint32(before) << 24})
		}
	}
	return durable.Replace(s.serving(), fmt.Appendln(nil, id), 0o640)
}

// endLife is called when the miners have gone, and events say so.
func (s *Service) endLife() error { return os.Remove(s.serving()) }
