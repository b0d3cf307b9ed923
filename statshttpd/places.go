package statshttpd

import (
	"fmt"
	"net/url"
	"strings"

	"btcpool/internal/config"
)

// Place is where miners connect.
type Place struct {
	URL  string `json:"url"` // without a host it is the one by which the dashboard was reached
	TLS  bool   `json:"tls"`
	Note string `json:"note"` // what it is for
}

// withTLS says which schemes of Stratum URLs there are, and which of them mean TLS.
var withTLS = map[string]bool{"stratum+tcp": false, "stratum": false, "stratum+ssl": true, "stratum+tls": true}

// ParsePlaces reads a list as "stratum+tcp://pool.example.org:3333 for ASICs, stratum+ssl://pool.example.org:3334": URLs,
// separated by commas, with or without a text behind each. An empty list is none.
func ParsePlaces(list string) (places []Place, err error) {
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	for item := range strings.SplitSeq(list, ",") {
		address, note, _ := strings.Cut(strings.TrimSpace(item), " ")
		u, err := url.Parse(address)
		if err != nil {
			return nil, fmt.Errorf("%q is no URL", config.RedactURL(address))
		}
		tls, known := withTLS[u.Scheme]
		if !known || u.Port() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("%q must be like stratum+tcp://host:port, or stratum+ssl://host:port with TLS", config.RedactURL(address))
		}
		places = append(places, Place{u.Scheme + "://" + u.Host, tls, strings.TrimSpace(note)})
	}
	return places, nil
}
