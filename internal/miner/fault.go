package miner

import (
	"errors"
	"fmt"
	"strings"
)

// Fault is a way to make a share invalid on purpose.
type Fault uint8

// The faults. Mixed stands for all of them in turn, valid shares between.
const (
	NoFault       Fault = iota
	LowDifficulty       // the hash misses the target
	Duplicate           // submitted twice; the first of the two is no fault
	BadJob              // a job id that the pool has not given out
	BadTime             // four hours ahead of the job; everything else is right
	Malformed           // requests that are not what mining.submit must be
	Oversized           // a line longer than any pool takes
	Mixed
)

var faultNames = [...]string{"", "lowdiff", "duplicate", "badjob", "badtime", "malformed", "oversized", "mix"}

func (f Fault) String() string { return faultNames[f] }

// UnmarshalText reads a fault's name; the empty name is NoFault.
func (f *Fault) UnmarshalText(text []byte) error {
	for i, name := range faultNames {
		if name == string(text) {
			*f = Fault(i)
			return nil
		}
	}
	return errors.New("not one of " + strings.Join(faultNames[1:], ", "))
}

// MarshalText returns the fault's name.
func (f Fault) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// at returns the fault of the n-th share.
func (f Fault) at(n uint64) Fault {
	if f == Mixed {
		return Fault(n % uint64(Mixed))
	}
	return f
}

const (
	unknownJob     = "deadbeef"
	badTimeSeconds = 4 * 3600
	oversizedBytes = 1 << 20
)

// malformed holds what is wrong with a mining.submit, as the lines after their beginning `{"id":N,`. Each is wrong in one
// way: parameters missing, of the wrong type, not hex, no parameters, no such method, and text that is not JSON.
var malformed = [...]string{
	`"method":"mining.submit","params":["worker","1"]}`,
	`"method":"mining.submit","params":[1,2,3,4,5]}`,
	`"method":"mining.submit","params":["worker","1","zz","zzzzzzzz","zzzzzzzz"]}`,
	`"method":"mining.submit"}`,
	`"method":"mining.no_such_method","params":[]}`,
	`"method":"mining.submit","params":["worker",`,
}

// appendFaulty appends a line of the kinds Malformed and Oversized.
func (f Fault) appendFaulty(dst []byte, id uint64) []byte {
	if f == Malformed {
		return fmt.Appendf(dst, "{\"id\":%d,%s\n", id, malformed[id%uint64(len(malformed))])
	}
	dst = fmt.Appendf(dst, `{"id":%d,"method":"mining.submit","params":["`, id)
	dst = append(dst, strings.Repeat("x", oversizedBytes)...)
	return append(dst, "\"]}\n"...)
}

// hidesID reports whether the pool cannot know the id of the request appendFaulty makes, so that its answer has none.
func (f Fault) hidesID(id uint64) bool {
	return f == Oversized || f == Malformed && id%uint64(len(malformed)) == uint64(len(malformed)-1)
}
