// Package sharefile is the share log on disk: one file a UTC day, named after the chain and the day of the shares' own
// times, holding each share exactly once whatever happens to the process that writes it.
//
// The format is btcpool's: a concatenation of gzip members; inside, records of a 4-byte little-endian length and a
// protobuf share. Each member is one flush, and its gzip header carries a checkpoint (RFC 1952 FEXTRA, which other
// readers skip): where in the share topic the flush began and ended, and which shares had been seen before it. So a
// checkpoint and the data it describes get to the disk together or not at all.
//
// A flush writes one member to each day file it has shares for, one after the other, each synced to disk. All shares of
// a file from before the offsets where its last member ends are in that file. After a crash the torn end of a file is
// cut off, reading resumes where the newest flush began, and shares that a file already has are left out of it.
package sharefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// MaxRecord bounds a record, in bytes.
const MaxRecord = 64 << 10

// Day is a UTC day, as YYYYMMDD.
type Day int

// DayOf returns the day of a unix time in seconds.
func DayOf(unix int64) Day {
	y, m, d := time.Unix(unix, 0).UTC().Date()
	return Day((y*100+int(m))*100 + d)
}

// ParseDay reads YYYYMMDD.
func ParseDay(text string) (Day, error) {
	t, err := time.Parse("20060102", text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a day like 20240131", text)
	}
	return DayOf(t.Unix()), nil
}

// Start returns the first moment of the day.
func (d Day) Start() time.Time {
	return time.Date(int(d)/10000, time.Month(int(d)/100%100), int(d)%100, 0, 0, 0, 0, time.UTC)
}

// Next returns the day after d.
func (d Day) Next() Day { return DayOf(d.Start().AddDate(0, 0, 1).Unix()) }

// Before returns the day before d.
func (d Day) Before() Day { return DayOf(d.Start().AddDate(0, 0, -1).Unix()) }

// ErrChain says that a chain's name cannot be part of a file name.
var ErrChain = errors.New("chain must be 1 to 16 letters and digits")

var chainName = regexp.MustCompile(`^[A-Za-z0-9]{1,16}$`)

// CheckChain returns ErrChain for a name that cannot be part of a file name.
func CheckChain(chain string) error {
	if !chainName.MatchString(chain) {
		return ErrChain
	}
	return nil
}

// Path returns the name of a chain's file of a day in dir.
func Path(dir, chain string, day Day) string {
	return filepath.Join(dir, "sharelog"+chain+"-"+day.Start().Format(time.DateOnly)+".bin")
}

// Days lists the days that chain has files of in dir, oldest first.
func Days(dir, chain string) ([]Day, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var days []Day
	for _, e := range entries {
		t, err := time.Parse("sharelog"+chain+"-"+time.DateOnly+".bin", e.Name())
		if err == nil {
			days = append(days, DayOf(t.Unix()))
		}
	}
	slices.Sort(days)
	return days, nil
}
