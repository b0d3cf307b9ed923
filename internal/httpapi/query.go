package httpapi

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxQuery bounds a query, in bytes.
const maxQuery = 64 << 10

// Query reads the parameters of a request, each once. Done tells what was wrong
// first: a parameter given twice, one that nobody read, or a bad value.
type Query struct {
	values url.Values
	code   string // that of its errors
	err    error
}

// ParseQuery reads what stands behind the question mark of a URL. Errors have the code.
func ParseQuery(raw, code string) *Query {
	q := &Query{code: code}
	if len(raw) > maxQuery {
		q.Failf("the query is longer than %d bytes", maxQuery)
		return q
	}
	var err error
	if q.values, err = url.ParseQuery(raw); err != nil {
		q.Failf("the query is not well formed")
	}
	for name, v := range q.values {
		if len(v) > 1 {
			q.Failf("parameter %.40q is given %d times", name, len(v))
		}
	}
	return q
}

// Has reports whether the parameter is given and has not been read yet.
func (q *Query) Has(name string) bool { return q.values.Has(name) }

// Text returns the parameter, or otherwise when it is not given.
func (q *Query) Text(name, otherwise string, maxBytes int) string {
	if !q.Has(name) {
		return otherwise
	}
	v := q.values.Get(name)
	delete(q.values, name)
	if len(v) > maxBytes {
		q.Failf("parameter %s is longer than %d bytes", name, maxBytes)
	}
	return v
}

// Integer returns the parameter, which must be a number from lowest to highest, or otherwise, which may be any, when it
// is not given.
func (q *Query) Integer(name string, otherwise, lowest, highest int) int {
	if !q.Has(name) {
		return otherwise
	}
	text := q.Text(name, "", 20)
	n, err := strconv.Atoi(text)
	if err != nil || n < lowest || n > highest {
		q.Failf("%s = %.40q: must be an integer from %d to %d", name, text, lowest, highest)
	}
	return n
}

// Choice returns the parameter, which must be one of those named; without it the first.
func (q *Query) Choice(name string, of ...string) string {
	v := q.Text(name, of[0], 40)
	if !slices.Contains(of, v) {
		q.Failf("%s = %.40q: must be one of %s", name, v, strings.Join(of, ", "))
	}
	return v
}

// Failf notes a fault of the request, unless there is one already.
func (q *Query) Failf(format string, args ...any) {
	if q.err == nil {
		q.err = Errorf(http.StatusBadRequest, q.code, format, args...)
	}
}

// Err returns the first fault, where parameters that nobody read are none.
func (q *Query) Err() error { return q.err }

// Done returns the first fault.
func (q *Query) Done() error {
	for name := range q.values {
		q.Failf("unknown parameter %.40q", name)
	}
	return q.err
}
