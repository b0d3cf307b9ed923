package bus

import (
	"errors"
	"regexp"

	"btcpool/internal/config"
)

// Config is the section [kafka], the same in the file of every service.
type Config struct {
	// Brokers are addresses, host:port, at least one: those named tell of the others.
	Brokers []string `toml:"brokers" env:"KAFKA_BROKERS"`
	// Replication is how many brokers keep a topic that we create.
	Replication int `toml:"replication"`
	// Partitions is how many the share topic has when we create it. Consumers of the original btcpool read partition 0
	// only.
	Partitions int    `toml:"share_partitions"`
	Topics     Topics `toml:"topics"`
}

// Topics names every topic once. Those of merged mining may be empty: there is none then.
type Topics struct {
	// RawGBT has block templates: gbtmaker's for jobmaker and blkmaker.
	RawGBT string `toml:"raw_gbt"`
	// Job has jobs: jobmaker's for sserver, blkmaker, poolwatcher and statshttpd.
	Job string `toml:"job"`
	// Share has sserver's shares for sharelogger and statshttpd, SolvedShare those that are blocks, for blkmaker, and
	// CommonEvents the coming and going of miners, for statshttpd.
	Share        string `toml:"share"`
	SolvedShare  string `toml:"solved_share"`
	CommonEvents string `toml:"common_events"`
	// AuxWork has the blocks of AuxPoW chains to be mined along, RSKWork that of
	// RSK: auxmaker's for jobmaker. AuxSolved and RSKSolved have sserver's shares
	// that solve them, for blkmaker.
	AuxWork   string `toml:"aux_work" env:"KAFKA_AUX_WORK"`
	AuxSolved string `toml:"aux_solved"`
	RSKWork   string `toml:"rsk_work" env:"KAFKA_RSK_WORK"`
	RSKSolved string `toml:"rsk_solved"`
}

// DefaultConfig returns btcpool's topic names on a broker on this host.
func DefaultConfig() Config {
	return Config{
		Brokers:     []string{"127.0.0.1:9092"},
		Replication: 1,
		Partitions:  1,
		Topics: Topics{
			RawGBT:       "BtcRawGbt",
			Job:          "BtcJob",
			Share:        "BtcShare",
			SolvedShare:  "BtcSolvedShare",
			CommonEvents: "BtcCommonEvents",
			AuxWork:      "AuxPowBlock",
			AuxSolved:    "AuxSolvedShare",
			RSKWork:      "RskRawGw",
			RSKSolved:    "RskSolvedShare",
		},
	}
}

// Validate reports all faults.
func (c Config) Validate() error {
	var faults config.Faults
	if len(c.Brokers) == 0 {
		faults.Addf("brokers: must name at least one host:port")
	}
	for _, broker := range c.Brokers {
		if _, _, err := config.Peer(broker); err != nil {
			faults.Addf("brokers has %q: %w", config.RedactURL(broker), err)
		}
	}
	faults.Number("replication", c.Replication, 1, 1<<15-1)
	faults.Number("share_partitions", c.Partitions, 1, 1000)
	faults.In("topics", c.Topics.validate())
	return config.In("kafka", faults.Err())
}

func (t Topics) validate() error {
	var faults config.Faults
	keyOf := make(map[string]string)
	for _, topic := range []struct {
		key, name string
		optional  bool
	}{
		{"raw_gbt", t.RawGBT, false},
		{"job", t.Job, false},
		{"share", t.Share, false},
		{"solved_share", t.SolvedShare, false},
		{"common_events", t.CommonEvents, false},
		{"aux_work", t.AuxWork, true},
		{"aux_solved", t.AuxSolved, true},
		{"rsk_work", t.RSKWork, true},
		{"rsk_solved", t.RSKSolved, true},
	} {
		if topic.optional && topic.name == "" {
			continue
		}
		if err := CheckTopic(topic.name); err != nil {
			faults.Addf("%s = %q: %w", topic.key, topic.name, err)
		} else if first, taken := keyOf[topic.name]; taken {
			faults.Addf("%s = %q: is %s already", topic.key, topic.name, first)
		}
		keyOf[topic.name] = topic.key
	}
	return faults.Err()
}

var validTopic = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)

// CheckTopic says what is wrong with the name of a topic by Kafka's rule.
func CheckTopic(name string) error {
	if !validTopic.MatchString(name) || name == "." || name == ".." {
		return errors.New("must be 1 to 249 of letters, digits, '.', '_' and '-'")
	}
	return nil
}
