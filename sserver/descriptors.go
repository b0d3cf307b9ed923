package sserver

import "fmt"

const (
	// spareFiles is how many descriptors a server needs besides those of its miners, with room to spare: spools, loops,
	// listeners, brokers, a database, whoever asks for metrics.
	spareFiles = 64
	// spareShare is the part of all descriptors that is kept back when there are many: in one process with other
	// services they are used by others, too.
	spareShare = 8
)

// Room returns how many connections can be served with so many descriptors, so that those always suffice for what keeps
// shares and blocks.
func Room(files int) int { return files - max(spareFiles, files/spareShare) }

// boundConnections returns how many connections are served with so many descriptors.
func (s *Service) boundConnections(files int) (int, error) {
	room := Room(files)
	switch {
	case room < 1:
		return 0, fmt.Errorf("the limit of open files is %d, and more than %d are needed: raise LimitNOFILE, or ulimit -n", files, spareFiles)
	case room < s.cfg.MaxConnections:
		s.log.Warn().Int("max_connections", s.cfg.MaxConnections).Int("served", room).Int("open_files", files).
			Msg("fewer connections are served than configured: raise LimitNOFILE, or ulimit -n")
		return room, nil
	}
	return s.cfg.MaxConnections, nil
}
