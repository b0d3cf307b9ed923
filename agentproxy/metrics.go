package agentproxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

type metrics struct {
	miners    prometheus.Gauge
	waiting   prometheus.Gauge
	links     *prometheus.GaugeVec
	relays    prometheus.Gauge
	refused   *prometheus.CounterVec
	ended     *prometheus.CounterVec
	badInput  prometheus.Counter
	dials     *prometheus.CounterVec
	linksLost *prometheus.CounterVec
	answers   *prometheus.CounterVec
	verdicts  *prometheus.CounterVec
	lost      *prometheus.CounterVec
	stray     prometheus.Counter
	verdictIn prometheus.Histogram
	bytes     *prometheus.CounterVec
	panics    prometheus.Counter
	reconnect prometheus.Counter
	jobs      *prometheus.CounterVec
	moved     prometheus.Counter

	refusedJobs prometheus.Counter
	checked     *prometheus.CounterVec
	blocks      prometheus.Counter
	held        prometheus.Counter
	late        prometheus.Counter
	silent      *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	set := telemetry.Metrics(reg, "agentproxy")
	return metrics{
		miners:    set.Gauge("miners", "Miners that are logged in."),
		waiting:   set.Gauge("miners_waiting", "Miners that are logged in and have no link to a pool."),
		links:     set.Gauges("links", "Links that can be mined on, by pool and protocol.", "pool", "protocol"),
		relays:    set.Gauge("relays", "Other farm proxies that talk to a pool through this one."),
		refused:   set.Counters("connections_refused_total", "Connections of miners that were not served, by reason.", "reason"),
		ended:     set.Counters("disconnects_total", "Miners that were disconnected, by reason.", "reason"),
		badInput:  set.Counter("bad_lines_total", "Lines of miners that are no proper request."),
		dials:     set.Counters("dials_total", "Attempts to get a link, by result.", "result"),
		linksLost: set.Counters("links_lost_total", "Links that have ended, by pool.", "pool"),
		answers:   set.Counters("answers_total", "Answers to miners' shares but those of checked_total, by status.", "status"),
		verdicts:  set.Counters("verdicts_total", "Verdicts of pools on shares, by status.", "status"),
		lost:      set.Counters("shares_lost_total", "Shares that did not reach a pool or whose verdict did not come, by reason.", "reason"),
		stray:     set.Counter("stray_verdicts_total", "Verdicts on shares that nobody waits for."),
		verdictIn: set.Histogram("verdict_seconds", "Time from a share that could be sent to the pool's verdict.",
			[]float64{.005, .01, .025, .05, .075, .1, .15, .25, .5, 1, 2.5, 5, 10}),
		bytes:       set.Counters("pool_bytes_total", "Bytes exchanged with pools, without TCP's and TLS's own, by direction.", "direction"),
		panics:      set.Counter("panics_total", "Faults of the program that cost a connection."),
		reconnect:   set.Counter("asicboost_reconnects_total", "Miners that were asked to connect again because they stopped rolling version bits, or roll some that they may not."),
		moved:       set.Counter("balance_moves_total", "Machines that were moved to another pool for the pools' weights."),
		refusedJobs: set.Counter("jobs_refused_total", "Jobs of pools that do not pay whom they have to."),
		jobs:        set.Counters("jobs_total", "Jobs by origin: of a pool, or stand-ins.", "origin"),
		checked:     set.Counters("checked_total", "Answers to shares that the check keeps from the pool, by status; 0: good enough for the machine's own difficulty, not for the pool's.", "status"),
		blocks:      set.Counter("blocks_total", "Shares that the check found to be blocks."),
		held:        set.Counter("shares_held_total", "Shares that waited for somebody to go on with a broken link."),
		late:        set.Counter("shares_late_total", "Shares that were delivered by another link than they were found for."),
		silent:      set.Gauges("silent_miners", "Machines that have worked and do not any more, connected or gone for a day at most.", "state"),
	}
}
