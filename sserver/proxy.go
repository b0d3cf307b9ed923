package sserver

import "btcpool/internal/proxyheader"

// proxied is what a session speaks until the proxy has said whom it is for.
type proxied struct{ stratumV1 }

func (c proxied) handle(dst, in []byte) (out []byte, n int, err error) {
	from, n, err := proxyheader.Parse(in)
	if n == 0 || err != nil {
		return dst, 0, err
	}
	if from.IsValid() {
		c.IP = from
	}
	if refusal := c.srv.admit(c.session, c.loop.now); refusal != "" {
		c.srv.metrics.refused.WithLabelValues(refusal).Inc()
		return dst, 0, errNotAdmitted
	}
	return dst, n, nil
}
