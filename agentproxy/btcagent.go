package agentproxy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"btcpool/internal/config"
)

// flexible is a boolean that may be written as a string, as BTCAgent's first generation takes it.
type flexible bool

func (f *flexible) UnmarshalJSON(text []byte) error {
	b, err := strconv.ParseBool(strings.ToLower(strings.Trim(string(text), `"`)))
	*f = flexible(b)
	if err != nil {
		return fmt.Errorf("%s is neither true nor false", text)
	}
	return nil
}

// poolEntry is [host, port, account].
type poolEntry struct {
	host    string
	port    uint16
	account string
}

func (p *poolEntry) UnmarshalJSON(text []byte) error {
	var list []json.RawMessage
	if err := json.Unmarshal(text, &list); err != nil || len(list) < 2 {
		return fmt.Errorf("%s is not [host, port, account]", text)
	}
	port, err := strconv.ParseUint(strings.Trim(string(list[1]), `"`), 10, 16)
	if err != nil || json.Unmarshal(list[0], &p.host) != nil {
		return fmt.Errorf("%s is not [host, port, account]", text)
	}
	p.port = uint16(port)
	if len(list) > 2 {
		if err := json.Unmarshal(list[2], &p.account); err != nil {
			return fmt.Errorf("%s is not [host, port, account]", text)
		}
	}
	return nil
}

// btcAgent is the file of BTCAgent, agent_conf.json, of all its generations.
type btcAgent struct {
	MultiUser        flexible    `json:"multi_user_mode"`
	AgentType        string      `json:"agent_type"`
	KeepMiners       flexible    `json:"always_keep_downconn"`
	LostASICBoost    *flexible   `json:"disconnect_when_lost_asicboost"`
	WorkersByIP      flexible    `json:"use_ip_as_worker_name"`
	IPFormat         string      `json:"ip_worker_name_format"`
	FixedWorker      string      `json:"fixed_worker_name"`
	PoolVerdicts     flexible    `json:"submit_response_from_server"`
	ListenIP         string      `json:"agent_listen_ip"`
	ListenPort       *uint16     `json:"agent_listen_port"`
	Proxies          []string    `json:"proxy"`
	UseProxy         *flexible   `json:"use_proxy"`
	DirectWithProxy  flexible    `json:"direct_connect_with_proxy"`
	DirectAfterProxy *flexible   `json:"direct_connect_after_proxy"`
	PoolTLS          flexible    `json:"pool_use_tls"`
	Pools            []poolEntry `json:"pools"`
	UseIOCP          flexible    `json:"use_iocp"`
	HTTPDebug        struct {
		Enable flexible `json:"enable"`
		Listen string   `json:"listen"`
	} `json:"http_debug"`
	Advanced struct {
		Links           *uint8          `json:"pool_connection_number_per_subaccount"`
		DialTimeout     uint32          `json:"pool_connection_dial_timeout_seconds"`
		ReadTimeout     uint32          `json:"pool_connection_read_timeout_seconds"`
		StandInInterval uint32          `json:"fake_job_notify_interval_seconds"`
		SkipVerify      *flexible       `json:"tls_skip_certificate_verify"`
		QueueSizes      json.RawMessage `json:"message_queue_size"`
	} `json:"advanced"`
}

// btcAgentLinks is how many links BTCAgent has when its file does not say.
const btcAgentLinks = 5

// FromBTCAgent returns the configuration that BTCAgent's file at path means, and what of it is different here.
func FromBTCAgent(path string) (cfg Config, warnings []string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, nil, err
	}
	var old btcAgent
	if err := json.Unmarshal(text, &old); err != nil {
		return Config{}, nil, fmt.Errorf("%s: %w", path, err)
	}
	if kind := strings.ToLower(old.AgentType); kind != "" && kind != "btc" {
		return Config{}, nil, fmt.Errorf("%s: agent_type = %q: only btc is served", path, old.AgentType)
	}
	cfg, warnings = old.config()
	warnings = append(warnings, unknownKeys(text)...)
	for i, w := range warnings {
		warnings[i] = path + ": " + w
	}
	return cfg, warnings, nil
}

func orTrue(f *flexible) bool { return f == nil || bool(*f) }

func seconds(n uint32, otherwise config.Duration) config.Duration {
	return cmp.Or(config.Duration(time.Duration(n)*time.Second), otherwise)
}

func (old btcAgent) config() (cfg Config, warnings []string) {
	warn := func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }
	cfg = DefaultConfig()
	port := "3333"
	if old.ListenPort != nil {
		port = strconv.Itoa(int(*old.ListenPort))
	}
	cfg.Listeners = []Listener{{Listen: net.JoinHostPort(cmp.Or(old.ListenIP, "0.0.0.0"), port)}}
	cfg.MultiUser = bool(old.MultiUser)
	cfg.KeepMiners = bool(old.KeepMiners)
	cfg.ReconnectLostASICBoost = orTrue(old.LostASICBoost)
	cfg.Workers = Workers{Fixed: old.FixedWorker, ByIP: bool(old.WorkersByIP), IPFormat: cmp.Or(old.IPFormat, cfg.Workers.IPFormat)}
	cfg.PoolVerdicts = bool(old.PoolVerdicts)

	if orTrue(old.UseProxy) {
		cfg.Proxy.URLs = old.Proxies
	}
	switch {
	case bool(old.DirectWithProxy):
		cfg.Proxy.Direct = DirectWith
	case orTrue(old.DirectAfterProxy):
		cfg.Proxy.Direct = DirectAfter
	}

	verify := old.Advanced.SkipVerify == nil || !bool(*old.Advanced.SkipVerify)
	switch {
	case !verify && bool(old.PoolTLS):
		warn("advanced.tls_skip_certificate_verify is true: whoever is between here and the pool can read and change everything")
	case old.Advanced.SkipVerify == nil && bool(old.PoolTLS):
		warn("the pools' certificates are verified: BTCAgent does not, unless advanced.tls_skip_certificate_verify is false")
	}
	cfg.Proxy.TLSSkipVerify = !verify
	for _, p := range old.Pools {
		cfg.Pools = append(cfg.Pools, Pool{
			Addr:          net.JoinHostPort(p.host, strconv.Itoa(int(p.port))),
			Account:       p.account,
			TLS:           bool(old.PoolTLS),
			TLSSkipVerify: !verify,
			Protocol:      ProtocolAuto,
		})
	}

	cfg.Links = btcAgentLinks
	if n := old.Advanced.Links; n != nil {
		cfg.Links = int(*n)
		if *n == 0 {
			cfg.Links = 1
			warn("advanced.pool_connection_number_per_subaccount = 0: one link is used, as nobody could mine with none")
		}
	}
	cfg.DialTimeout = seconds(old.Advanced.DialTimeout, cfg.DialTimeout)
	cfg.ReadTimeout = seconds(old.Advanced.ReadTimeout, cfg.ReadTimeout)
	cfg.StandInInterval = seconds(old.Advanced.StandInInterval, cfg.StandInInterval)
	if old.HTTPDebug.Enable {
		warn("http_debug is not served: the status page is at http://%s", cfg.Page)
	}
	if old.Advanced.QueueSizes != nil {
		warn("advanced.message_queue_size has no meaning here: there are no such queues")
	}
	if old.UseIOCP {
		warn("use_iocp has no meaning here")
	}
	return cfg, warnings
}

// unknownKeys warns of the first key that neither BTCAgent nor this program knows.
func unknownKeys(text []byte) []string {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var old btcAgent
	if err := dec.Decode(&old); err != nil {
		if _, key, ok := strings.Cut(err.Error(), "unknown field "); ok {
			return []string{"unknown key " + key + " is ignored"}
		}
	}
	return nil
}
