package sharefile

import (
	"encoding/binary"
	"os"
)

// aheadBytes is how large members, and their data, may be that are read ahead: there are several in memory.
const aheadBytes = 16 << 20

// ahead inflates members of ours before they are asked for, each in a goroutine of its own.
type ahead struct {
	file   *os.File
	most   int       // under way at the same time
	next   int64     // where the member begins that is sent for next
	flying []*flight // in the order of the file
	idle   []*flight // to be used again
	lent   *flight   // what take returned
}

// flight is a member that is being inflated.
type flight struct {
	members  members
	at, size int64
	err      error // once it is done
	done     chan struct{}
}

// take returns the sound member at an offset, and sends for those behind it. It returns nil for one that has to be read
// where it stands. The member is the caller's until the next call.
func (a *ahead) take(at, fileSize int64) (m *members, size int64) {
	if a.most == 0 {
		return nil, 0
	}
	if a.lent != nil {
		a.idle, a.lent = append(a.idle, a.lent), nil
	}
	for len(a.flying) > 0 && a.flying[0].at <= at && m == nil {
		f := a.flying[0]
		a.flying = a.flying[1:]
		<-f.done
		if f.err == nil && f.at == at {
			a.lent, m, size = f, &f.members, f.size
		} else {
			a.idle = append(a.idle, f)
		}
	}
	a.next = max(a.next, at)
	for len(a.flying) < a.most && a.send(fileSize) {
		// until enough are under way
	}
	return m, size
}

// send begins with the member at a.next, if it is of ours, whole and not too large.
func (a *ahead) send(fileSize int64) bool {
	f := &flight{done: make(chan struct{}, 1)}
	if last := len(a.idle) - 1; last >= 0 {
		f, a.idle = a.idle[last], a.idle[:last]
	}
	size, ok := a.measure(f, fileSize)
	if !ok {
		a.idle = append(a.idle, f)
		return false
	}
	f.at, f.size = a.next, size
	a.next += size
	a.flying = append(a.flying, f)
	go func() {
		f.err = f.members.inflate(a.file, f.at, f.size)
		f.done <- struct{}{}
	}()
	return true
}

// measure returns the size of the member at a.next.
func (a *ahead) measure(f *flight, fileSize int64) (size int64, ok bool) {
	header, err := f.members.readHeader(a.file, a.next, fileSize)
	if err != nil {
		return 0, false
	}
	_, size, ok = parseHeader(header)
	if !ok || size > min(aheadBytes, fileSize-a.next) {
		return 0, false
	}
	var length [4]byte
	_, err = a.file.ReadAt(length[:], a.next+size-int64(len(length)))
	return size, err == nil && binary.LittleEndian.Uint32(length[:]) <= aheadBytes
}

// end waits for what is under way.
func (a *ahead) end() {
	for _, f := range a.flying {
		<-f.done
	}
	a.flying = nil
}
