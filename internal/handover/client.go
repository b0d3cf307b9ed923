package handover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"btcpool/internal/httpapi"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/telemetry"

	"github.com/rs/zerolog"
)

const (
	// maxSending is how many solved shares are on their way at a time; beyond, a new one takes the place of the oldest.
	maxSending = 64
	// requestFor bounds one request, which waits for blkmaker's disk.
	requestFor = 5 * time.Second
	// probeEvery is how often blkmakers are asked whether they would take a share. After a failure they are asked
	// sooner.
	probeEvery, probeAgain = time.Minute, 5 * time.Second
	// drainFor is how long shares on their way are tried when we are to stop.
	drainFor = 3 * time.Second
)

// pace is that of tries to reach a blkmaker that is away.
var pace = retry.Pace{First: 50 * time.Millisecond, Longest: 2 * time.Second}

// Client hands solved shares to every blkmaker at once.
type Client struct {
	urls    []string
	token   string
	log     zerolog.Logger
	metrics *metrics
	http    *http.Client
	queue   chan []byte
}

// New returns a client; it calls nobody. A client without URLs is fine, and does nothing.
func New(cfg Config, deps telemetry.Deps) (*Client, error) {
	c := &Client{log: deps.Log, metrics: newMetrics(deps.Metrics), queue: make(chan []byte, maxSending)}
	if len(cfg.URLs) == 0 {
		return c, nil
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	var err error
	if c.token, err = cfg.token().Read(); err != nil {
		return nil, err
	}
	for _, u := range cfg.URLs {
		c.urls = append(c.urls, strings.TrimRight(u, "/")+path)
	}
	c.http = &http.Client{
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     time.Minute,
			TLSHandshakeTimeout: requestFor,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Send has Run hand over a solved share, as share.WithName makes it. It never blocks and does not keep solved.
// False says that too many are waiting; that is counted, and the share is left to Kafka.
func (c *Client) Send(solved []byte) bool {
	if len(c.urls) == 0 {
		return true
	}
	select {
	case c.queue <- bytes.Clone(solved):
		return true
	default:
		c.metrics.shares.WithLabelValues(resultDropped).Inc()
		return false
	}
}

// Run hands over what Send takes until ctx ends, and then for a few seconds what is on its way.
func (c *Client) Run(ctx context.Context) error {
	if len(c.urls) == 0 {
		<-ctx.Done()
		return nil
	}
	defer c.http.CloseIdleConnections()
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var probing sync.WaitGroup
	for _, u := range c.urls {
		probing.Go(func() { c.probe(ctx, u) })
	}
	defer probing.Wait()
	var (
		sending sync.WaitGroup
		cancels [maxSending]context.CancelFunc
		n       int
	)
	begin := func(solved []byte) {
		if cancel := cancels[n%maxSending]; cancel != nil {
			cancel()
		}
		one, cancel := context.WithCancel(work)
		cancels[n%maxSending] = cancel
		n++
		sending.Go(func() {
			defer cancel()
			c.deliver(one, solved)
		})
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case solved := <-c.queue:
			begin(solved)
		}
	}
	for len(c.queue) > 0 {
		begin(<-c.queue)
	}
	timer := time.AfterFunc(drainFor, stop)
	defer timer.Stop()
	sending.Wait()
	return nil
}

// probe asks a blkmaker whether it would take a solved share, at once and every minute until ctx ends: a wrong address
// or token is to be known before a block.
func (c *Client) probe(ctx context.Context, url string) {
	log := c.log.With().Str("url", url).Logger()
	fault := service.NewFault(log, zerolog.ErrorLevel, "blkmaker would not take solved shares directly", "blkmaker takes solved shares directly again")
	for pause := time.Duration(0); retry.Sleep(ctx, pause); {
		err := c.post(ctx, url, nil)
		if errors.Is(err, errRefused) && strings.Contains(err.Error(), share.ErrSolved.Error()) {
			err = nil // a blkmaker that does not know probes: it has judged an empty share
		}
		if ctx.Err() != nil {
			return
		}
		fault.Set(err)
		up := 0.0
		pause = probeAgain
		if err == nil {
			up, pause = 1, probeEvery
		}
		c.metrics.up.WithLabelValues(url).Set(up)
	}
}

// deliver gives a solved share to every blkmaker, to each until it answers or another one has taken it.
func (c *Client) deliver(ctx context.Context, solved []byte) {
	retrying, enough := context.WithCancel(ctx)
	defer enough()
	taken := make(chan bool, len(c.urls))
	for _, u := range c.urls {
		go func() {
			ok := c.offer(ctx, retrying, u, solved)
			if ok {
				enough()
			}
			taken <- ok
		}()
	}
	result := resultFailed
	for range c.urls {
		if <-taken {
			result = resultTaken
		}
	}
	c.metrics.shares.WithLabelValues(result).Inc()
}

// offer repeats a request until it is taken or refused, ctx ends or, between two tries, retrying does.
func (c *Client) offer(ctx, retrying context.Context, url string, solved []byte) (taken bool) {
	log := c.log.With().Str("url", url).Logger()
	err := retry.Do(retrying, pace, func() error {
		start := time.Now()
		err := c.post(ctx, url, solved)
		switch {
		case err == nil:
			log.Info().Dur("latency_ms", time.Since(start)).Msg("solved share handed over")
			return nil
		case errors.Is(err, errRefused):
			log.Error().Err(err).Msg("solved share not handed over")
			err = retry.Enough(err)
		}
		c.metrics.failures.Inc()
		return err
	}, func(err error, pause time.Duration) {
		log.Warn().Err(err).Dur("retry_ms", pause).Msg("solved share not handed over: will try again")
	})
	return err == nil
}

// errRefused says that another try would not help.
var errRefused = errors.New("refused")

func (c *Client) post(ctx context.Context, to string, solved []byte) error {
	ctx, cancel := context.WithTimeout(ctx, requestFor)
	defer cancel()
	name, solved := share.CutName(solved)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(solved))
	if err != nil {
		return err
	}
	if name != "" {
		req.Header.Set(nameHeader, name)
	}
	httpapi.Authorize(req, c.token)
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header["Idempotency-Key"] = nil // not sent: the transport may repeat the request on another connection
	resp, err := c.http.Do(req)
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return wrapped.Err // without the URL, which the log line has
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
	text := strings.ReplaceAll(string(said), c.token, "…") // who is no blkmaker may repeat what it was asked
	switch resp.StatusCode {
	case http.StatusNoContent:
		return nil
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: HTTP %d, %q", errRefused, resp.StatusCode, text)
	case http.StatusUnauthorized:
		return errors.New("HTTP 401: sserver and blkmaker do not have the same token")
	}
	return fmt.Errorf("HTTP %d, %q", resp.StatusCode, text)
}
