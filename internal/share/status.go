package share

// Status is the verdict on a share. The codes are stored and sent to agents; 21 to 34 are also Stratum error codes.
type Status int32

// The verdicts. Those marked "other chains" are never given to a Bitcoin share but may be read.
const (
	StatusAccept              Status = 1798084231
	StatusAcceptStale         Status = 950395421  // other chains
	StatusSolved              Status = 1422486894 // other chains: a Bitcoin share that solves a block is StatusAccept
	StatusSolvedStale         Status = 1713984938 // other chains
	StatusSolvedPreliminary   Status = 1835617709 // other chains
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
	StatusJobNotFound         Status = 36 // Stratum clients are told 21
	StatusStale               Status = 37 // Stratum clients are told 21
	StatusClientIsNotSwitcher Status = 400
	StatusUnknown             Status = 2147483647
)

// Text is what a miner reads about the verdict.
func (s Status) Text() string {
	switch s {
	case StatusAccept:
		return "Share accepted"
	case StatusAcceptStale:
		return "Share accepted (stale)"
	case StatusSolved:
		return "Share accepted and solved"
	case StatusSolvedStale:
		return "Share accepted and solved (stale)"
	case StatusRejectNoReason:
		return "Share rejected"
	case StatusJobNotFoundOrStale:
		return "Job not found (=stale)"
	case StatusDuplicate:
		return "Duplicate share"
	case StatusLowDifficulty:
		return "Low difficulty"
	case StatusUnauthorized:
		return "Unauthorized worker"
	case StatusNotSubscribed:
		return "Not subscribed"
	case StatusIllegalMethod:
		return "Illegal method"
	case StatusIllegalParams:
		return "Illegal params"
	case StatusIPBanned:
		return "Ip banned"
	case StatusInvalidUsername:
		return "Invalid username"
	case StatusInternalError:
		return "Internal error"
	case StatusTimeTooOld:
		return "Time too old"
	case StatusTimeTooNew:
		return "Time too new"
	case StatusIllegalVersionMask:
		return "Invalid version mask"
	case StatusInvalidSolution:
		return "Invalid Solution"
	case StatusWrongNoncePrefix:
		return "Wrong Nonce Prefix"
	case StatusJobNotFound:
		return "Job not found"
	case StatusStale:
		return "Stale share"
	case StatusClientIsNotSwitcher:
		return "Client is not a stratum switcher"
	default:
		return "Unknown"
	}
}

// IsAccepted tells whether the miner was credited, in time or late.
func (s Status) IsAccepted() bool {
	switch s {
	case StatusAccept, StatusAcceptStale, StatusSolved, StatusSolvedStale:
		return true
	}
	return false
}

// IsStale tells whether the share came too late for its job, credited or not. StatusJobNotFound is not among them:
// nobody can say what that job was.
func (s Status) IsStale() bool {
	switch s {
	case StatusAcceptStale, StatusSolvedStale, StatusJobNotFoundOrStale, StatusStale:
		return true
	}
	return false
}
