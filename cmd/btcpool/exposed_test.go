package main

import (
	"net"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"btcpool/internal/config"
)

// exposed are the keys whose default, or whose value in the sample, lets others than this machine in: miners and
// machines.
var exposed = map[string][]string{
	"sserver":    {"listen"},
	"agentproxy": {"listeners.listen"},
	"switcher":   {"listeners.listen"},
}

// elsewhere are the keys of whom a service talks to, or tells people of, in the samples.
var elsewhere = []string{"pools.addr", "stratum_url"}

// TestOnlyStratumIsExposed holds the defaults and the samples to loopback addresses: whoever starts a service as it
// comes lets nobody in but miners.
func TestOnlyStratumIsExposed(t *testing.T) {
	t.Parallel()
	for _, defaults := range configs {
		of := reflect.TypeOf(defaults)
		name := path.Base(of.PkgPath())
		sample := reflect.New(of)
		sample.Elem().Set(reflect.ValueOf(defaults))
		text, err := os.ReadFile(filepath.Join("..", "..", "configs", name+".toml"))
		if err == nil {
			err = toml.Unmarshal(text, sample.Interface())
		}
		if err != nil {
			t.Fatal(err)
		}
		addresses := map[string]string{}
		listenAddresses(reflect.ValueOf(defaults), "", addresses)
		listenAddresses(sample.Elem(), "", addresses)
		if len(addresses) == 0 {
			t.Errorf("%s: no address found", name)
		}
		var open []string
		for key, addr := range addresses {
			if !config.IsLoopback(addr) && !slices.Contains(elsewhere, key) {
				open = append(open, key)
			}
		}
		if slices.Sort(open); !slices.Equal(open, exposed[name]) {
			t.Errorf("%s lets others in by %q, want %q: %v", name, open, exposed[name], addresses)
		}
	}
}

// listenAddresses adds the texts in v that are host:port, by key. One that is not a loopback address stays.
func listenAddresses(v reflect.Value, key string, into map[string]string) {
	switch v.Kind() {
	case reflect.String:
		addr := v.String()
		if _, rest, isURL := strings.Cut(addr, "://"); isURL {
			addr = rest
		}
		if _, port, err := net.SplitHostPort(addr); err == nil && port != "" && (into[key] == "" || config.IsLoopback(into[key])) {
			into[key] = addr
		}
	case reflect.Slice:
		for i := range v.Len() {
			listenAddresses(v.Index(i), key, into)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("toml"), ",")
			if !field.IsExported() {
				continue
			}
			if key != "" && name != "" {
				name = key + "." + name
			}
			listenAddresses(v.Field(i), name, into)
		}
	}
}
