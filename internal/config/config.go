// Package config holds what configurations are made of: durations, addresses, secrets, and faults that name the key
// they are about. It knows no service.
//
// A Config's Validate collects everything that is wrong in Faults; each fault
// begins with the key as the file has it, sections included, then the value and
// the rule: `listen = "x": must be host:port`.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Faults collects what is wrong with a configuration. The zero value is ready.
type Faults []error

// Add adds err, which may be nil or several joined errors.
func (f *Faults) Add(err error) {
	if err != nil {
		*f = append(*f, err)
	}
}

// Addf adds a fault; the text begins with the key.
func (f *Faults) Addf(format string, args ...any) { *f = append(*f, fmt.Errorf(format, args...)) }

// In adds the faults of a section, whose keys lack the section's name.
func (f *Faults) In(section string, err error) { f.Add(In(section, err)) }

// Listen adds a fault when addr is no host:port to listen at; port 0 is any free one.
func (f *Faults) Listen(key, addr string) {
	f.Value(key, addr, checkPort(addr))
}

// AtLeast adds a fault when d is shorter than least.
func (f *Faults) AtLeast(key string, d Duration, least time.Duration) {
	switch {
	case d.Std() >= least:
	case least == 0:
		f.Addf("%s = %q: must not be negative", key, d)
	default:
		f.Addf("%s = %q: must be at least %s", key, d, Duration(least))
	}
}

// Number adds a fault when n is not from least to most.
func (f *Faults) Number(key string, n, least, most int) {
	if n < least || n > most {
		f.Addf("%s = %d: must be %d to %d", key, n, least, most)
	}
}

// NotNegative adds a fault when n is.
func (f *Faults) NotNegative(key string, n int64) {
	if n < 0 {
		f.Addf("%s = %d: must not be negative", key, n)
	}
}

// Folder adds a fault when path is empty.
func (f *Faults) Folder(key, path string) {
	if path == "" {
		f.Addf("%s = %q: must name a folder", key, path)
	}
}

// Value adds what err, unless it is nil, says of a key's value. Should that be a URL, it is told without its login.
func (f *Faults) Value(key, value string, err error) {
	if err != nil {
		f.Addf("%s = %q: %w", key, RedactURL(value), err)
	}
}

// Err returns all faults joined, nil when there are none.
func (f Faults) Err() error { return errors.Join(f...) }

// In puts section and a dot before each of the errors that err joins.
func In(section string, err error) error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return fmt.Errorf("%s.%w", section, err)
	}
	// What wraps several errors in a text of its own is one fault all the same.
	if err.Error() != errors.Join(joined.Unwrap()...).Error() {
		return fmt.Errorf("%s.%w", section, err)
	}
	var all Faults
	for _, one := range joined.Unwrap() {
		all.In(section, one)
	}
	return all.Err()
}

func checkPort(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return errors.New("must be host:port")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errors.New("port must be 0 to 65535")
	}
	return nil
}

// Peer splits the address of somebody to connect to, host:port: neither may be missing.
func Peer(addr string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(addr)
	n, portErr := strconv.ParseUint(text, 10, 16)
	if err != nil || portErr != nil || host == "" || n == 0 {
		return "", 0, errors.New("must be host:port")
	}
	return host, uint16(n), nil
}

// IsLoopback reports whether host:port can be reached from this machine only.
func IsLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}
