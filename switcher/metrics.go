package switcher

import (
	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

// Labels: chain and server are names of the configuration; all others are of the program.
type metrics struct {
	sessions       [phases]prometheus.Gauge
	onChain        *prometheus.GaugeVec
	serverUp       *prometheus.GaugeVec
	refused        *prometheus.CounterVec
	refusals       *prometheus.CounterVec
	logins         *prometheus.CounterVec
	disconnected   *prometheus.CounterVec
	shares         *prometheus.CounterVec
	switches       *prometheus.CounterVec
	switchesFailed *prometheus.CounterVec
	switchSeconds  prometheus.Histogram
	failovers      *prometheus.CounterVec
	upstreamLogins *prometheus.CounterVec
	upstreamsLost  *prometheus.CounterVec
	badServers     *prometheus.CounterVec
	unfit          *prometheus.CounterVec
	unknownChains  prometheus.Counter
	extraNonces    prometheus.Counter
	badLines       prometheus.Counter
	pauses         prometheus.Counter
	panics         prometheus.Counter
	bytesIn        prometheus.Counter
	bytesUp        prometheus.Counter
	bytesDown      prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	set := telemetry.Metrics(reg, "switcher")
	sessions := set.Gauges("sessions", "Miners connected, by how far they have come.", "phase")
	m := &metrics{
		onChain:        set.Gauges("chain_sessions", "Miners that mine a chain.", "chain"),
		serverUp:       set.Gauges("server_up", "1 while a server answers.", "chain", "server"),
		refused:        set.Counters("connections_refused_total", "Connections closed at once.", "reason"),
		refusals:       set.Counters("refusals_total", "Requests of miners answered with an error of the switcher's own, or a login with the server's.", "reason"),
		logins:         set.Counters("logins_total", "Logins of miners, by result: ok or refused.", "result"),
		disconnected:   set.Counters("disconnected_total", "Miners disconnected, by reason.", "reason"),
		shares:         set.Counters("shares_total", "Shares, by the chain and what became of them: accepted, rejected, the same late, stale, or lost with the server.", "chain", "result"),
		switches:       set.Counters("switches_total", "Miners moved to a chain.", "chain"),
		switchesFailed: set.Counters("switches_failed_total", "Tries to move a miner to a chain that failed, or whose server refused the user.", "chain", "result"),
		switchSeconds: set.Histogram("switch_seconds", "From hearing of a switch to the new chain's job being on its way to the miner.",
			[]float64{.005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30}),
		failovers:      set.Counters("failovers_total", "Miners moved to another server of their chain.", "chain"),
		upstreamLogins: set.Counters("server_logins_total", "Logins at servers, by result: ok, refused or late.", "chain", "result"),
		upstreamsLost:  set.Counters("server_connections_lost_total", "Connections of miners to servers that broke.", "chain"),
		badServers:     set.Counters("server_bad_lines_total", "What servers sent that is no Stratum.", "chain"),
		unfit:          set.Counters("extranonce_unfit_total", "Servers whose extranonce a miner cannot go over to.", "chain"),
		unknownChains:  set.Counter("unknown_chain_total", "Users whose node names a chain that is not configured: they stay where they are."),
		extraNonces:    set.Counter("extranonces_set_total", "Miners told of another extranonce."),
		badLines:       set.Counter("bad_lines_total", "What miners sent that is no Stratum."),
		pauses:         set.Counter("pauses_total", "Miners paused because they sent too much."),
		panics:         set.Counter("panics_total", "Sessions that ended by a fault of the program."),
		bytesIn:        set.Counter("received_bytes_total", "Bytes from miners."),
		bytesUp:        set.Counter("server_sent_bytes_total", "Bytes to servers."),
		bytesDown:      set.Counter("server_received_bytes_total", "Bytes from servers."),
	}
	for p := range phases {
		m.sessions[p] = sessions.WithLabelValues(p.String())
	}
	return m
}
