package main

import (
	"slices"
	"testing"

	"btcpool/sserver"
)

// Topics are those of each chain of an sserver, and shares are looked for in all of them.
func TestTopicsOfChains(t *testing.T) {
	t.Parallel()
	c := sserver.DefaultConfig()
	for _, name := range []string{"btc", "bch"} {
		c.Chains = append(c.Chains, sserver.Chain{Name: name, JobTopic: name + "-job", ShareTopic: name + "-share", SolvedShareTopic: name + "-solved"})
	}
	p := &pool{parts: []part{{program: "sserver", name: "sserver", config: c}}}
	names := p.topics()
	for _, want := range []string{"btc-job", "bch-job", "btc-share", "bch-share", "btc-solved", "bch-solved"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not among %q", want, names)
		}
	}
	if alone := sserver.DefaultConfig().Kafka.Topics.Share; slices.Contains(names, alone) {
		t.Errorf("%s is of no chain", alone)
	}
	if got, want := p.shareTopics(), []string{"bch-share", "btc-share"}; !slices.Equal(got, want) {
		t.Errorf("shares in %q, want %q", got, want)
	}
}
