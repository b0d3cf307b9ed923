package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Legacy is the envelope of btcpool's own answers, which come with status 200 whatever they say.
type Legacy struct {
	ErrNo  int    `json:"err_no"`
	ErrMsg string `json:"err_msg"`
	Data   any    `json:"data,omitempty"`
}

// LegacyUptime is a duration as btcpool's status answers write it.
func LegacyUptime(d time.Duration) string {
	s := int64(d.Seconds())
	return fmt.Sprintf("%04d d %02d h %02d m %02d s", s/86400, s/3600%24, s/60%60, s%60)
}

// maxLegacyForm is how many bytes of parameters a POST may have: some 50,000 ids of workers.
const maxLegacyForm = 1 << 20

// LegacyForm returns the parameters of a request to one of btcpool's addresses: those of a POST are its body, whatever
// content type it names, those of the other methods are in the URL.
func LegacyForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	query := r.URL.RawQuery
	if r.Method == http.MethodPost {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLegacyForm))
		if err != nil {
			return nil, err
		}
		query = string(body)
	}
	return url.ParseQuery(query)
}
