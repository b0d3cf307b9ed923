package share

import (
	"cmp"
	"strconv"
)

// Status is the verdict on a share. The numbers are stored and sent to agents; 21 to 34 are also Stratum error codes.
// Shares of other software may have any number.
type Status int32

// The verdicts of this pool, and those that are read. A Bitcoin share that solves a block is StatusAccept.
const (
	StatusAccept             Status = 1798084231
	StatusAcceptStale        Status = 950395421 // given within sserver's stale_grace only
	StatusRejectNoReason     Status = 0
	StatusJobNotFoundOrStale Status = 21
	StatusDuplicate          Status = 22
	StatusLowDifficulty      Status = 23
	StatusUnauthorized       Status = 24
	StatusNotSubscribed      Status = 25
	StatusIllegalMethod      Status = 26
	StatusIllegalParams      Status = 27
	StatusIPBanned           Status = 28
	StatusInvalidUsername    Status = 29
	StatusInternalError      Status = 30
	StatusTimeTooOld         Status = 31
	StatusTimeTooNew         Status = 32
	StatusIllegalVersionMask Status = 33
	StatusJobNotFound        Status = 36
	StatusStale              Status = 37
	StatusUnknown            Status = 2147483647
)

// verdict is all that follows from a status, here and in the services.
type verdict struct {
	status Status
	text   string
	is     traits
	told   Status // to clients, in place of the status; 0: the status itself
	label  string // in metrics; "": the number
}

// traits say whether a share was credited, whether it was late, and whose fault it is that it was not credited.
type traits uint8

const (
	accepted traits = 1 << iota
	stale
	minersFault
	poolsFault
	nobodysFault traits = 0 // as far as can be told
)

// verdicts is where a new reject reason is added. Those that sserver never gives have the label of unknown ones; those
// without a constant are of other software and other chains. The first is found the fastest.
var verdicts = [...]verdict{
	{status: StatusAccept, text: "Share accepted", is: accepted, label: "0"},
	{status: StatusAcceptStale, text: "Share accepted (stale)", is: accepted | stale, label: "stale"},
	{status: StatusJobNotFoundOrStale, text: "Job not found (=stale)", is: stale},
	{status: StatusDuplicate, text: "Duplicate share", is: minersFault},
	{status: StatusLowDifficulty, text: "Low difficulty", is: minersFault},
	{status: StatusUnauthorized, text: "Unauthorized worker", is: minersFault},
	{status: StatusNotSubscribed, text: "Not subscribed", is: minersFault},
	{status: StatusIllegalMethod, text: "Illegal method", is: minersFault},
	{status: StatusIllegalParams, text: "Illegal params", is: minersFault},
	{status: StatusIPBanned, text: "Ip banned", is: minersFault},
	{status: StatusInvalidUsername, text: "Invalid username", is: minersFault},
	{status: StatusInternalError, text: "Internal error", is: poolsFault},
	{status: StatusTimeTooOld, text: "Time too old", is: minersFault},
	{status: StatusTimeTooNew, text: "Time too new", is: minersFault},
	{status: StatusIllegalVersionMask, text: "Invalid version mask", is: minersFault},
	{status: 34, text: "Invalid Solution", is: minersFault},
	{status: 35, text: "Wrong Nonce Prefix", is: minersFault},
	{status: StatusJobNotFound, text: "Job not found", is: nobodysFault, told: StatusJobNotFoundOrStale},
	{status: StatusStale, text: "Stale share", is: stale, told: StatusJobNotFoundOrStale},
	{status: 1422486894, text: "Share accepted and solved", is: accepted, label: "other"},
	{status: 1713984938, text: "Share accepted and solved (stale)", is: accepted | stale, label: "other"},
	{status: StatusRejectNoReason, text: "Share rejected", is: minersFault, label: "other"},
	{status: 400, text: "Client is not a stratum switcher", is: minersFault, label: "other"},
	{status: StatusUnknown, text: "Unknown", is: minersFault, label: "other"}, // and every other number
}

func (s Status) verdict() *verdict {
	i := 0
	for i < len(verdicts)-1 && verdicts[i].status != s {
		i++
	}
	return &verdicts[i]
}

// Statuses returns all verdicts.
func Statuses() []Status {
	var all []Status
	for _, v := range verdicts {
		all = append(all, v.status)
	}
	return all
}

// Known returns s, or StatusUnknown for a number that is none of the verdicts.
func (s Status) Known() Status { return s.verdict().status }

// Text is what a miner reads about the verdict.
func (s Status) Text() string { return s.verdict().text }

// Told returns what Stratum clients and agents are told: unknown and stale jobs look the same to them.
func (s Status) Told() Status { return cmp.Or(s.verdict().told, s) }

// Label names s in metrics. There are few labels, whatever the statuses are.
func (s Status) Label() string {
	if label := s.verdict().label; label != "" {
		return label
	}
	return strconv.Itoa(int(s))
}

// IsAccepted tells whether the miner was credited, in time or late.
func (s Status) IsAccepted() bool { return s.verdict().is&accepted != 0 }

// IsStale tells whether the share came too late for its job, credited or not. StatusJobNotFound is not among them:
// nobody can say what that job was.
func (s Status) IsStale() bool { return s.verdict().is&stale != 0 }

// IsMinersFault tells whether the miner is to blame for it that the share was not credited.
func (s Status) IsMinersFault() bool { return s.verdict().is&minersFault != 0 }
