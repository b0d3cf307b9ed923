package main

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"btcpool/agentproxy"
	"btcpool/auxmaker"
	"btcpool/blkmaker"
	"btcpool/gbtmaker"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/jobmaker"
	"btcpool/poolwatcher"
	"btcpool/sharelogger"
	"btcpool/slparser"
	"btcpool/sserver"
	"btcpool/statshttpd"
	"btcpool/switchapi"
	"btcpool/switcher"
)

// configs are those of all programs.
var configs = []service.Config{
	agentproxy.DefaultConfig(),
	auxmaker.DefaultConfig(),
	blkmaker.DefaultConfig(),
	gbtmaker.DefaultConfig(),
	jobmaker.DefaultConfig(),
	poolwatcher.DefaultConfig(),
	sharelogger.DefaultConfig(),
	slparser.DefaultConfig(),
	sserver.DefaultConfig(),
	statshttpd.DefaultConfig(),
	switchapi.DefaultConfig(),
	switcher.DefaultConfig(),
	defaultConfig(),
}

// TestVariablesAreKnown keeps the list by which a service tells a mistyped variable from one of another service.
func TestVariablesAreKnown(t *testing.T) {
	t.Parallel()
	var names []string
	for _, cfg := range configs {
		names = append(names, service.Variables(cfg)...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	testkit.Golden(t, "../../../internal/service/variables.txt", []byte(strings.Join(names, "\n")+"\n"))
}

// address is a key whose value people may write a login into.
var address = regexp.MustCompile(`(url|addr|dsn|listen|brokers|servers|zmq_hashblock|password|token|reconnect_to|stratum|http)s?(\[\d+\])?( \(-\w+\))?( =| has|:)`)

// TestFaultsKeepSecrets has every text of every configuration be a URL with a login: what is wrong with an address is
// told without.
func TestFaultsKeepSecrets(t *testing.T) {
	t.Parallel()
	const secret = "S3CRET"
	for _, cfg := range configs {
		filled := reflect.New(reflect.TypeOf(cfg)).Elem()
		filled.Set(reflect.ValueOf(cfg))
		setTexts(filled, "ftp://me:"+secret+"@pool/?token="+secret)
		err := filled.Interface().(service.Config).Validate()
		if err == nil {
			t.Errorf("%T: nothing to complain about", cfg)
			continue
		}
		for line := range strings.Lines(err.Error()) {
			if strings.Contains(line, secret) && address.MatchString(line) {
				t.Errorf("%T: %s", cfg, line)
			}
		}
	}
}

// setTexts sets all texts in v, and gives each list one element.
func setTexts(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		setTexts(v.Index(0), text)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		setTexts(v.Elem(), text)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				setTexts(v.Field(i), text)
			}
		}
	}
}
