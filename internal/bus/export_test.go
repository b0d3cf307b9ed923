package bus

import "time"

// RecordSet encodes msgs as Write does.
func RecordSet(msgs []Message, now time.Time, compress bool) []byte {
	var e encoder
	return e.recordSet(msgs, bytesOf(msgs), now, compress)
}

// Records decodes a record set, without its size, as Read does.
func Records(set []byte, next int64) (msgs []Message, after int64, err error) {
	return records(set, next)
}

// ParseFetch parses an answer to a fetch of that version.
func ParseFetch(body []byte, version int16) (set []byte, highWatermark int64, err error) {
	return (&fetchAnswer{body, version}).parse()
}

// RecordSetEncoder returns a function that encodes msgs into the same memory again and again.
func RecordSetEncoder(msgs []Message, compress bool) func() []byte {
	var e encoder
	size, now := bytesOf(msgs), time.Now()
	return func() []byte { return e.recordSet(msgs, size, now, compress) }
}

// LeastReplicas is for partitions that have different ones.
var LeastReplicas = leastReplicas

func bytesOf(msgs []Message) (size int) {
	for _, m := range msgs {
		size += len(m.Key) + len(m.Value)
	}
	return size
}
