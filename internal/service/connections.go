package service

import (
	"fmt"

	"github.com/rs/zerolog"
)

const (
	// spareFiles is how many descriptors a server needs besides those of its miners, with room to spare: spools, loops,
	// listeners, brokers, a database, pools, whoever asks for metrics.
	spareFiles = 64
	// spareShare is the part of all descriptors that is kept back when there are many: in one process with other
	// services they are used by others, too.
	spareShare = 8
)

// Room returns how many connections can be served with so many descriptors, so that those always suffice for what all of
// them depend on.
func Room(files int) int { return files - max(spareFiles, files/spareShare) }

// Connections returns how many connections of the wanted ones are served with so many descriptors.
func Connections(wanted, files int, log zerolog.Logger) (int, error) {
	room := Room(files)
	switch {
	case room < 1:
		return 0, fmt.Errorf("the limit of open files is %d, and more than %d are needed: raise LimitNOFILE, or ulimit -n", files, spareFiles)
	case room < wanted:
		log.Warn().Int("max_connections", wanted).Int("served", room).Int("open_files", files).
			Msg("fewer connections are served than configured: raise LimitNOFILE, or ulimit -n")
		return room, nil
	}
	return wanted, nil
}
