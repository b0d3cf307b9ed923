package share

import "strconv"

// Status is the verdict on a share. The numbers are stored and sent to agents; 21 to 34 are also Stratum error codes.
// Shares of other software may have any number.
type Status int32

// The verdicts. A new one is a constant here and a line in the table below, from which all that is asked of a status
// follows, here and in the services.
const (
	StatusAccept              Status = 1798084231
	StatusAcceptStale         Status = 950395421  // within sserver's stale_grace, or of another chain
	StatusSolved              Status = 1422486894 // other chains only: a Bitcoin share that solves a block is StatusAccept
	StatusSolvedStale         Status = 1713984938 // other chains only
	StatusRejectNoReason      Status = 0
	StatusJobNotFoundOrStale  Status = 21
	StatusDuplicate           Status = 22
	StatusLowDifficulty       Status = 23
	StatusUnauthorized        Status = 24
	StatusNotSubscribed       Status = 25
	StatusIllegalMethod       Status = 26
	StatusIllegalParams       Status = 27
	StatusIPBanned            Status = 28
	StatusInvalidUsername     Status = 29
	StatusInternalError       Status = 30
	StatusTimeTooOld          Status = 31
	StatusTimeTooNew          Status = 32
	StatusIllegalVersionMask  Status = 33
	StatusInvalidSolution     Status = 34
	StatusWrongNoncePrefix    Status = 35
	StatusJobNotFound         Status = 36
	StatusStale               Status = 37
	StatusClientIsNotSwitcher Status = 400
	StatusUnknown             Status = 2147483647
)

// verdict is what follows from a status.
type verdict struct {
	status Status
	text   string
	kind   kind
	told   Status // in place of the status to clients; 0: the status itself
	label  string // in metrics; "": the number
}

// kind says whether a share was credited, and if not, whose fault that is.
type kind uint8

const (
	minersFault kind = iota
	poolsFault
	credited
	creditedLate
	late  // nobody's fault
	noJob // nobody's fault as far as can be told: its job is not known any more, or never was
)

var verdicts = [...]verdict{ // the first is found the fastest
	{status: StatusAccept, text: "Share accepted", kind: credited, label: "0"},
	{status: StatusAcceptStale, text: "Share accepted (stale)", kind: creditedLate, label: "stale"},
	{status: StatusJobNotFoundOrStale, text: "Job not found (=stale)", kind: late},
	{status: StatusDuplicate, text: "Duplicate share", kind: minersFault},
	{status: StatusLowDifficulty, text: "Low difficulty", kind: minersFault},
	{status: StatusUnauthorized, text: "Unauthorized worker", kind: minersFault},
	{status: StatusNotSubscribed, text: "Not subscribed", kind: minersFault},
	{status: StatusIllegalMethod, text: "Illegal method", kind: minersFault},
	{status: StatusIllegalParams, text: "Illegal params", kind: minersFault},
	{status: StatusIPBanned, text: "Ip banned", kind: minersFault},
	{status: StatusInvalidUsername, text: "Invalid username", kind: minersFault},
	{status: StatusInternalError, text: "Internal error", kind: poolsFault},
	{status: StatusTimeTooOld, text: "Time too old", kind: minersFault},
	{status: StatusTimeTooNew, text: "Time too new", kind: minersFault},
	{status: StatusIllegalVersionMask, text: "Invalid version mask", kind: minersFault},
	{status: StatusInvalidSolution, text: "Invalid Solution", kind: minersFault},
	{status: StatusWrongNoncePrefix, text: "Wrong Nonce Prefix", kind: minersFault},
	{status: StatusJobNotFound, text: "Job not found", kind: noJob, told: StatusJobNotFoundOrStale},
	{status: StatusStale, text: "Stale share", kind: late, told: StatusJobNotFoundOrStale},
	{status: StatusSolved, text: "Share accepted and solved", kind: credited, label: otherLabel},
	{status: StatusSolvedStale, text: "Share accepted and solved (stale)", kind: creditedLate, label: otherLabel},
	{status: StatusRejectNoReason, text: "Share rejected", kind: minersFault, label: otherLabel},
	{status: StatusClientIsNotSwitcher, text: "Client is not a stratum switcher", kind: minersFault, label: otherLabel},
	{status: StatusUnknown, text: "Unknown", kind: minersFault, label: otherLabel}, // and all that are not in the table
}

// otherLabel is for what sserver never says.
const otherLabel = "other"

func (s Status) verdict() *verdict {
	i := 0
	for i < len(verdicts)-1 && verdicts[i].status != s {
		i++
	}
	return &verdicts[i]
}

// Statuses returns all verdicts.
func Statuses() []Status {
	all := make([]Status, len(verdicts))
	for i, v := range verdicts {
		all[i] = v.status
	}
	return all
}

// Known returns s, or StatusUnknown for a number that is none of the verdicts.
func (s Status) Known() Status { return s.verdict().status }

// Text is what a miner reads about the verdict.
func (s Status) Text() string { return s.verdict().text }

// Told returns what Stratum clients and agents are told: unknown and stale jobs look the same to them.
func (s Status) Told() Status {
	if told := s.verdict().told; told != 0 {
		return told
	}
	return s
}

// Label names s in metrics. The labels are few, whatever the statuses are.
func (s Status) Label() string {
	v := s.verdict()
	if v.label != "" {
		return v.label
	}
	return strconv.Itoa(int(v.status))
}

// IsAccepted tells whether the miner was credited, in time or late.
func (s Status) IsAccepted() bool {
	k := s.verdict().kind
	return k == credited || k == creditedLate
}

// IsStale tells whether the share came too late for its job, credited or not. StatusJobNotFound is not among them:
// nobody can say what that job was.
func (s Status) IsStale() bool {
	k := s.verdict().kind
	return k == late || k == creditedLate
}

// IsMinersFault tells whether the miner could have known that the share is refused. Late shares are nobody's fault.
func (s Status) IsMinersFault() bool { return s.verdict().kind == minersFault }
