package httpapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Fetch does a request and returns the body of its answer, which must have status 200 and be of at most so many bytes.
// Its errors keep what is secret in a URL to themselves.
func Fetch(c *http.Client, req *http.Request, most int64) (text []byte, err error) {
	defer func() {
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		if err != nil {
			err = fmt.Errorf("%s %s%s: %w", req.Method, req.URL.Host, req.URL.Path, err)
		}
	}()
	res, err := c.Do(req) //nolint:gosec // whom it is asked of is the operator's choice
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, errors.New(res.Status)
	}
	text, err = io.ReadAll(io.LimitReader(res.Body, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("answer is longer than %d bytes", most)
	}
	return text, err
}
