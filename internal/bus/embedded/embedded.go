// Package embedded is the Kafka broker in the process, for trying the pool out and for tests. It is twmb/franz-go's
// kfake, which speaks Kafka's protocol and keeps topics and group offsets on disk; it is not meant to be reached by
// anybody but this machine.
//
// Acknowledged messages survive the death of the process, not that of the
// machine: they are in the kernel's page cache then.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kfake"

	"btcpool/internal/durable"
	"btcpool/internal/retry"
)

const retentionInterval = time.Minute

// Broker is a running broker.
type Broker struct {
	cluster *kfake.Cluster
	addr    string
	lock    *os.File
	stop    context.CancelFunc
	running sync.WaitGroup
}

// Start opens or makes the broker's data in dataDir and listens on addr, where port 0 takes a free one.
func Start(dataDir, addr string, log zerolog.Logger) (*Broker, error) {
	lock, err := durable.Lock(dataDir)
	if err != nil {
		return nil, err
	}
	// We listen before kfake starts because it would leave its data open if it could not listen.
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		lock.Close()
		return nil, err
	}
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return guardedListener{ln}, nil }),
		kfake.DefaultNumPartitions(1),
		kfake.DataDir(filepath.Join(dataDir, "kafka")),
		kfake.WithLogger(logger{log.With().Str("component", "broker").Logger()}),
	)
	if err != nil {
		err = fmt.Errorf("embedded broker in %s: %w", dataDir, err)
		return nil, errors.Join(err, ln.Close(), lock.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	b := &Broker{cluster: cluster, addr: ln.Addr().String(), lock: lock, stop: stop}
	b.running.Go(func() {
		for retry.Sleep(ctx, retentionInterval) {
			cluster.ApplyRetention()
		}
	})
	return b, nil
}

// Addr returns host:port to connect to.
func (b *Broker) Addr() string { return b.addr }

// Close disconnects everybody and writes down what is still in memory. It must be called once.
func (b *Broker) Close() error {
	b.stop()
	b.running.Wait()
	b.cluster.Close()
	return b.lock.Close()
}

// logger writes the broker's lines to ours, one level lower: what it calls information is each request.
type logger struct{ log zerolog.Logger }

func (l logger) Logf(level kfake.LogLevel, format string, args ...any) {
	to := zerolog.TraceLevel
	switch level {
	case kfake.LogLevelError:
		to = zerolog.ErrorLevel
	case kfake.LogLevelWarn:
		to = zerolog.WarnLevel
	case kfake.LogLevelInfo:
		to = zerolog.DebugLevel
	}
	l.log.WithLevel(to).Msgf(format, args...)
}
