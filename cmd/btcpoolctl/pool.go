package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"btcpool/auxmaker"
	"btcpool/blkmaker"
	"btcpool/gbtmaker"
	"btcpool/internal/bus"
	"btcpool/internal/service"
	"btcpool/internal/store"
	"btcpool/jobmaker"
	"btcpool/poolwatcher"
	"btcpool/sharelogger"
	"btcpool/slparser"
	"btcpool/sserver"
	"btcpool/statshttpd"
	"btcpool/switchapi"
	"btcpool/switcher"
)

// A part is a service as a configuration file has it.
type part struct {
	program string // as "sserver"
	name    string // of the file, without its ending: one of several sservers has another
	file    string
	config  service.Config
	err     error // why config is not to be relied on
}

// loaders read the file of a program.
var loaders = map[string]func(file string) (service.Config, error){
	"gbtmaker":    load(gbtmaker.DefaultConfig),
	"jobmaker":    load(jobmaker.DefaultConfig),
	"sserver":     load(sserver.DefaultConfig),
	"blkmaker":    load(blkmaker.DefaultConfig),
	"sharelogger": load(sharelogger.DefaultConfig),
	"slparser":    load(slparser.DefaultConfig),
	"statshttpd":  load(statshttpd.DefaultConfig),
	"auxmaker":    load(auxmaker.DefaultConfig),
	"poolwatcher": load(poolwatcher.DefaultConfig),
	"switchapi":   load(switchapi.DefaultConfig),
	"switcher":    load(switcher.DefaultConfig),
}

// order is that in which work goes through the pool.
var order = []string{"gbtmaker", "auxmaker", "poolwatcher", "jobmaker", "sserver", "blkmaker", "sharelogger", "slparser", "statshttpd", "switchapi", "switcher"}

// load reads a configuration as the service does that systemd starts: with the variables of its file beside.
func load[C service.Config](defaults func() C) func(string) (service.Config, error) {
	return func(file string) (service.Config, error) {
		cfg := defaults()
		restore, err := setVariables(strings.TrimSuffix(file, ".toml") + ".env")
		if err != nil {
			return cfg, err
		}
		defer restore()
		if err := service.Load(file, &cfg); err != nil {
			return cfg, err
		}
		return cfg, cfg.Validate()
	}
}

// setVariables sets the environment variables that a file of systemd's form has, until restore is called. There need be
// none.
func setVariables(file string) (restore func(), err error) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var undo []func()
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(name, "#") || strings.HasPrefix(name, ";") {
			continue
		}
		before, was := os.LookupEnv(name)
		undo = append(undo, func() {
			if was {
				_ = os.Setenv(name, before)
			} else {
				_ = os.Unsetenv(name)
			}
		})
		_ = os.Setenv(name, strings.Trim(value, `"'`))
	}
	return func() {
		for _, u := range slices.Backward(undo) {
			u()
		}
	}, nil
}

// pool is all parts of a pool.
type pool struct {
	dir   string
	parts []part
}

// openPool reads the files in a folder that are called after a program, as sserver.toml and sserver-2.toml, but for those
// called as in without.
func openPool(dir string, without []string) (*pool, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.toml"))
	if err != nil {
		return nil, err
	}
	p := &pool{dir: dir}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".toml")
		program := programOf(name)
		if program == "" || slices.Contains(without, name) {
			continue
		}
		cfg, err := loaders[program](file)
		p.parts = append(p.parts, part{program, name, file, cfg, err})
	}
	if len(p.parts) == 0 {
		if _, err := os.Stat(dir); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%s: there is no file of a service, like sserver.toml: say with -C where they are", dir)
	}
	slices.SortStableFunc(p.parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.program), slices.Index(order, b.program)), cmp.Compare(a.name, b.name))
	})
	return p, nil
}

// programOf returns the program that a file called name is for, "" for another's.
func programOf(name string) string {
	for _, program := range order {
		if rest, ok := strings.CutPrefix(name, program); ok && (rest == "" || strings.ContainsRune("-_.@", rune(rest[0]))) {
			return program
		}
	}
	return ""
}

// configs returns the configurations of a kind, by the names of their parts, in order; those that cannot be relied on
// are left out.
func configs[C any](p *pool) (all []C, names []string) {
	for _, part := range p.parts {
		if cfg, ok := part.config.(C); ok && part.err == nil {
			all, names = append(all, cfg), append(names, part.name)
		}
	}
	return all, names
}

// only returns the parts that are for some of these programs.
func (p *pool) only(programs ...string) *pool {
	some := &pool{dir: p.dir}
	for _, part := range p.parts {
		if slices.Contains(programs, part.program) {
			some.parts = append(some.parts, part)
		}
	}
	return some
}

func first[A, B any](a A, _ B) A { return a }

// ask returns what the parts say to get, where that is something.
func ask[T any](p *pool, get func(service.Config) (T, bool)) (all []T, names []string) {
	for _, part := range p.parts {
		if part.err != nil {
			continue
		}
		if of, ok := get(part.config); ok {
			all, names = append(all, of), append(names, part.name)
		}
	}
	return all, names
}

// kafkaOf returns the section [kafka] of a service.
func kafkaOf(cfg service.Config) (bus.Config, bool) {
	switch c := cfg.(type) {
	case gbtmaker.Config:
		return c.Kafka, true
	case jobmaker.Config:
		return c.Kafka, true
	case sserver.Config:
		return c.Kafka, true
	case blkmaker.Config:
		return c.Kafka, true
	case sharelogger.Config:
		return c.Kafka, true
	case statshttpd.Config:
		return c.Kafka, true
	case auxmaker.Config:
		return c.Kafka, true
	case poolwatcher.Config:
		return c.Kafka, true
	case switchapi.Config:
		return c.Kafka, c.AutoChain.Enabled
	}
	return bus.Config{}, false
}

// databaseOf returns the section [database] of a service that has one.
func databaseOf(cfg service.Config) (store.Config, bool) {
	switch c := cfg.(type) {
	case sserver.Config:
		return c.UsersDatabase(), c.NeedsDatabase()
	case blkmaker.Config:
		return c.Database, true
	case slparser.Config:
		return c.Database, true
	case statshttpd.Config:
		return c.Database, true
	}
	return store.Config{}, false
}

var errNoKafka = errors.New("no service that has [kafka] is configured here")
