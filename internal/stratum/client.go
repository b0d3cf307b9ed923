package stratum

import (
	"fmt"
	"math"
	"strconv"

	"btcpool/internal/jsonscan"
)

// What a pool asks of a miner's software: the methods that begin with "client.".

// AppendReconnect appends the notification that asks a miner to connect to another place, host:port, or, if that is
// empty, to the same again. It should wait some seconds before it does.
func AppendReconnect(dst []byte, host string, port uint16, wait int) []byte {
	dst = append(dst, `{"id":null,"method":"client.reconnect","params":[`...)
	if host != "" {
		dst = appendString(dst, host)
		dst = append(dst, ',')
		dst = strconv.AppendUint(dst, uint64(port), 10)
		dst = append(dst, ',')
		dst = strconv.AppendInt(dst, int64(wait), 10)
	}
	return append(dst, "]}\n"...)
}

// ParseReconnect reads the parameters of client.reconnect: host, port, which may be a string, and seconds to wait, all
// of them optional. An empty host and a zero port mean the present ones. wait is not negative and may be infinite.
func ParseReconnect(params []byte) (host string, port uint16, wait float64, err error) {
	var list [3]jsonscan.Value
	n := elements(params, list[:])
	if list[0].IsString() {
		host = words(list[0])
	}
	if n > 1 {
		p, err := strconv.ParseUint(string(bare(list[1])), 10, 16)
		if err != nil {
			return "", 0, 0, fmt.Errorf("port %.40s is not a number up to %d", list[1], math.MaxUint16)
		}
		port = uint16(p)
	}
	wait, _ = number(list[2])
	return host, port, max(0, wait), nil
}

// AppendShowMessage appends the notification of a text that a miner is to show.
func AppendShowMessage(dst []byte, text string) []byte {
	dst = append(dst, `{"id":null,"method":"client.show_message","params":[`...)
	dst = appendString(dst, text)
	return append(dst, "]}\n"...)
}

// ParseShowMessage returns the text of client.show_message, if there is one. It is the pool's: long, with any
// characters.
func ParseShowMessage(params []byte) (text string, ok bool) {
	var list [1]jsonscan.Value
	ok = elements(params, list[:]) > 0
	return words(list[0]), ok
}

// AppendGetVersion appends a question for the miner's software. The id is a number because cgminer answers with one.
func AppendGetVersion(dst []byte) []byte {
	return append(dst, `{"id":1,"method":"client.get_version","params":[]}`+"\n"...)
}

// AppendVersion appends the answer to client.get_version.
func AppendVersion(dst, id []byte, agent string) []byte {
	return AppendResult(dst, id, string(appendString(nil, agent)))
}
