package switcher

import (
	"errors"
	"fmt"

	"btcpool/internal/chainwatch"
	"btcpool/internal/stratum"
)

// refusal is why a request is refused, as a miner is told: [code, text, server id]. The codes up to 500 are those of
// btcpool's switcher.
type refusal struct {
	code   int
	text   string
	reason string // a label for metrics
}

var (
	refuseNotSubscribed = refusal{101, "Need Subscribed", "not subscribed"}
	refuseSubscribed    = refusal{102, "Duplicate Subscribed", "subscribed twice"}
	refuseTooFew        = refusal{103, "Too Few Params", "too few params"}
	refuseNotText       = refusal{104, "Worker Name Must be a String", "name is no string"}
	refuseNoName        = refusal{105, "Sub-account Name Cannot be Empty", "no name"}
	refuseName          = refusal{106, "Invalid Worker Name", "illegal name"}
	refuseFull          = refusal{107, "Too Many Connections", "no session id"}
	refuseUnknown       = refusal{201, "Invalid Sub-account Name", "unknown user"}
	refuseUnavailable   = refusal{202, "Sub-account Cannot be Looked up Now", "unavailable"}
	refuseCrowded       = refusal{203, "Too Many Registrations", "registrations"}
	refuseUnregistered  = refusal{204, "Registration Takes Too Long", "registration late"}
	refuseNoChain       = refusal{301, "Stratum Server Not Found", "no chain"}
	refuseNoServer      = refusal{302, "Connect Stratum Server Failed", "no server"}
	refuseByServer      = refusal{303, "Refused by Stratum Server", "server"} // whose own words the miner gets
	refuseLogin         = refusal{24, "Unauthorized worker", "not logged in"}
	refuseMethod        = refusal{20, "Not Supported", "unknown method"}
	refuseParams        = refusal{20, "Illegal Params", "illegal params"}
	refuseBusy          = refusal{20, "Too Many Requests Are Waiting", "busy"}
	refuseLost          = refusal{20, "Stratum Server Is Gone", "server gone"}
	refuseSilent        = refusal{20, "Stratum Server Does Not Answer", "server silent"}
	refuseStale         = refusal{21, "Job not found (=stale)", "stale"}
)

// append appends the answer that refuses a request.
func (r refusal) append(dst, id []byte, server uint8) []byte {
	return stratum.AppendAnswer(dst, id, "null", fmt.Sprintf(`[%d,%q,%d]`, r.code, r.text, server))
}

// refusalOf says why there is no answer for a user.
func refusalOf(err error) refusal {
	switch {
	case errors.Is(err, chainwatch.ErrCrowded):
		return refuseCrowded
	case errors.Is(err, chainwatch.ErrUnanswered):
		return refuseUnregistered
	}
	return refuseUnavailable
}

// Why connections end.
var (
	errRefused     = errors.New("the login is refused")
	errDetect      = errors.New("what comes is no Stratum")
	errGibberish   = errors.New("sends no JSON")
	errLongLine    = errors.New("sends a line that is too long")
	errTimeout     = errors.New("nothing came in time")
	errNoServer    = errors.New("no server of the chain can be reached")
	errSwitched    = errors.New("the user was switched, and an agent cannot be")
	errExtraNonce  = errors.New("the server has another extranonce, and the miner cannot go over to it")
	errReconnect   = errors.New("asked to connect again")
	errUpstream    = errors.New("the server has ended the connection")
	errFormer      = errors.New("the server is not configured any more")
	errStopping    = errors.New("the service stops")
	errFault       = errors.New("a fault of the program")
	errNotAdmitted = errors.New("not admitted")
	errBanned      = errors.New("banned")
)

// reasons are labels for metrics.
var reasons = map[error]string{
	errRefused: "refused", errDetect: "no stratum", errGibberish: "bad lines", errLongLine: "line too long", errTimeout: "timeout",
	errNoServer: "no server", errSwitched: "switched agent", errExtraNonce: "extranonce", errReconnect: "reconnect",
	errUpstream: "server", errStopping: "stopping", errFault: "panic", errNotAdmitted: "not admitted", errBanned: "banned",
}
