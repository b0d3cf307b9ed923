package config

import (
	"fmt"
	"time"
)

// Duration is a time.Duration written "90s" or "1h30m" in files, environment and flags.
type Duration time.Duration

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns d as it is written in a file.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText returns d as it is written in a file.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration understands.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf(`%q is not a duration like "90s" or "5m"`, text)
	}
	*d = Duration(v)
	return nil
}
