package sserver

import (
	"errors"
	"os"

	"btcpool/internal/poll"
)

// ending is why this side ends a session. The reason is a label of a metric; the protocols have such errors of their
// own.
type ending struct{ text, reason string }

func (e *ending) Error() string { return e.text }

// Reason is a label for metrics.
func (e *ending) Reason() string { return e.reason }

var (
	errSpool       = &ending{"shares cannot be kept", "spool"}
	errBanned      = &ending{"banned", "banned"}
	errMisuse      = &ending{"sends refused logins or invalid shares only", "misuse"}
	errUserGone    = &ending{"user was removed or has another id", "user"}
	errReplaced    = &ending{"its farm proxy is here on another connection", "replaced"}
	errKicked      = &ending{"sent away by the operator", "kicked"}
	errNotAdmitted = errors.New("not admitted") // who connects through a proxy is not welcome
)

// Why the server is not ready.
var (
	errNoServerID = errors.New("no server id yet")
	errDraining   = errors.New("draining, as the operator wished")
	errNoJob      = errors.New("no job yet")
)

// disconnectReason returns why this side ended a session, "" if it did not.
func disconnectReason(err error) string {
	var of interface{ Reason() string }
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.Is(err, poll.ErrSlow):
		return "slow"
	case errors.As(err, &of):
		return of.Reason()
	}
	return ""
}
