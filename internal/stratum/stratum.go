// Package stratum is the text of Stratum V1, both halves of it. A server parses the requests of miners and appends
// answers and notifications; a client appends requests and parses what pools send. There are no sockets and no state
// here, and what is parsed is hostile: bounded, checked, never guessed.
//
// The server's texts are btcpool's, byte for byte, because firmware is known to depend on them. Version rolling and the
// other extensions are those of BIP 310.
//
// The client takes what pools are known to send: members and parameters beyond the known ones, ids that come back as
// strings, hex of either case, whole and fractional difficulties, errors that are arrays, objects or plain texts, and
// results that are false with no error beside them.
//
// Functions whose names begin with Append append one line each and return the extended buffer. An answer has the id of
// its request, which is JSON text; requests are numbered.
package stratum

import "errors"

// The errors of parsing what miners send. Those of the client's half only say what is wrong: a pool that sends nonsense
// is left, whatever the nonsense.
var (
	// ErrBlank means that there is nothing on a line.
	ErrBlank = errors.New("a blank line")
	// ErrSyntax means that a line is no JSON object; nothing of it is known.
	ErrSyntax = errors.New("not a JSON object")
	// ErrRequest means that the method is missing or a value has the wrong type. The id is known.
	ErrRequest = errors.New("not a request")
	// ErrAnswer means that a line answers a request, which only this side's miners get.
	ErrAnswer = errors.New("an answer")
	// ErrParams means that the parameters are not those of the method.
	ErrParams = errors.New("illegal parameters")
)
