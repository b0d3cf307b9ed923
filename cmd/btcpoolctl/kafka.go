package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/sharelogger"
	"btcpool/sserver"
)

// kafkaPatience is how long Kafka may take to answer.
const kafkaPatience = 15 * time.Second

var errKafkaAway = errors.New("kafka.brokers: Kafka does not answer: is it running?")

// kafka returns a client of the pool's Kafka.
func (t *tool) kafka(p *pool) (*bus.Client, error) {
	all, _ := ask(p, kafkaOf)
	if len(all) == 0 {
		return nil, errNoKafka
	}
	return bus.New(all[0], service.Deps{Log: t.log, Metrics: prometheus.NewRegistry()})
}

// topicUses are the topics, and which services use them.
var topicUses = []struct {
	key      string
	get      func(bus.Topics) string
	programs []string
}{
	{"raw_gbt", func(t bus.Topics) string { return t.RawGBT }, []string{"gbtmaker", "poolwatcher", "jobmaker", "blkmaker"}},
	{"job", func(t bus.Topics) string { return t.Job }, []string{"poolwatcher", "jobmaker", "sserver", "blkmaker", "statshttpd"}},
	{"share", func(t bus.Topics) string { return t.Share }, []string{"sserver", "sharelogger", "statshttpd"}},
	{"solved_share", func(t bus.Topics) string { return t.SolvedShare }, []string{"sserver", "blkmaker"}},
	{"common_events", func(t bus.Topics) string { return t.CommonEvents }, []string{"sserver", "statshttpd"}},
	{"aux_work", func(t bus.Topics) string { return t.AuxWork }, []string{"auxmaker", "jobmaker"}},
	{"rsk_work", func(t bus.Topics) string { return t.RSKWork }, []string{"auxmaker", "jobmaker"}},
	{"aux_solved", func(t bus.Topics) string { return t.AuxSolved }, []string{"sserver", "blkmaker"}},
	{"rsk_solved", func(t bus.Topics) string { return t.RSKSolved }, []string{"sserver", "blkmaker"}},
}

// topics returns the names of the topics that the services of a pool use.
func (p *pool) topics() []string {
	var names []string
	for _, part := range p.parts {
		c, ok := kafkaOf(part.config)
		if part.err != nil || !ok {
			continue
		}
		for _, of := range topicsOf(part.config) {
			for _, topic := range topicUses {
				if slices.Contains(topic.programs, part.program) {
					names = append(names, topic.get(of))
				}
			}
		}
		if part.program == "gbtmaker" {
			names = append(names, job.LightTopic(c.Topics.RawGBT))
		}
		if c, ok := part.config.(sserver.Config); ok && c.Management.Enabled {
			names = append(names, c.Management.ControllerTopic, c.Management.ProcessorTopic)
		}
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == "" })
}

// topicsOf returns the topics of each chain of a service.
func topicsOf(cfg service.Config) (all []bus.Topics) {
	switch c := cfg.(type) {
	case sserver.Config:
		for _, one := range c.PerChain() {
			all = append(all, one.Kafka.Topics)
		}
	case sharelogger.Config:
		for _, one := range c.PerChain() {
			all = append(all, one.Kafka.Topics)
		}
	default:
		if kafka, ok := kafkaOf(cfg); ok {
			all = append(all, kafka.Topics)
		}
	}
	return all
}

// onKafka makes a command of what speaks to Kafka, whose topics that are used have names.
func (t *tool) onKafka(cmd *cobra.Command, do func(ctx context.Context, client *bus.Client, names []string) error) *cobra.Command {
	return t.onPool(cmd, func(ctx context.Context, p *pool, _ []string) error {
		client, err := t.kafka(p)
		if err != nil {
			return err
		}
		defer func() { _ = client.Close() }()
		ctx, cancel := context.WithTimeoutCause(ctx, kafkaPatience, errKafkaAway)
		defer cancel()
		return do(ctx, client, p.topics())
	})
}

func (t *tool) topicsCommand() *cobra.Command {
	create := t.onKafka(&cobra.Command{Use: "create", Short: "Create the topics that are missing, as the services would", Args: exactly(0)},
		func(ctx context.Context, client *bus.Client, names []string) error {
			if err := cmp.Or(client.EnsureTopics(ctx, names...), context.Cause(ctx)); err != nil {
				return err
			}
			t.printf("%d topics are there\n", len(names))
			return nil
		})
	return t.onKafka(parent("topics", "Topics of Kafka", create), func(ctx context.Context, client *bus.Client, names []string) (missing error) {
		t.table(func(w io.Writer) {
			fmt.Fprintln(w, "TOPIC\tPARTITIONS\tREPLICAS\tMESSAGES")
			for _, name := range names {
				is, err := client.Describe(ctx, name)
				if err != nil {
					fmt.Fprintf(w, "%s\t%v\n", name, err)
					missing = errFound
					continue
				}
				fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", name, is.Partitions, is.Replicas, is.Messages)
			}
		})
		return missing
	})
}
