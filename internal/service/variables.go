package service

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// variable is an environment variable, without EnvPrefix, that sets a field. The index of a list's element is "#" in
// it.
type variable struct{ name, old string }

// variablesOf returns the variables of the fields of t, whose names begin with prefix.
func variablesOf(t reflect.Type, prefix string) (all []variable) {
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		field := t.Field(i)
		under := prefix + field.Tag.Get("envPrefix")
		if field.Type.Kind() == reflect.Slice {
			all = append(all, variablesOf(field.Type.Elem(), under+"#_")...)
		} else {
			all = append(all, variablesOf(field.Type, under)...)
		}
		if name := field.Tag.Get("env"); name != "" {
			all = append(all, variable{prefix + name, field.Tag.Get("oldenv")})
		}
	}
	return all
}

// Variables returns the names of the environment variables that set the fields of cfg, a struct, with those they had
// before: without EnvPrefix, and with "#" for the index of a list's element.
func Variables(cfg any) []string {
	var names []string
	for _, v := range variablesOf(reflect.TypeOf(cfg), "") {
		names = append(names, v.name)
		if v.old != "" {
			names = append(names, v.old)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// outdatedEnv returns the variables that are set by the old names of fields of cfg, which is a struct, and not by the
// new ones: their new names by the old, without EnvPrefix.
func outdatedEnv(cfg any) map[string]string {
	outdated := make(map[string]string)
	for _, v := range variablesOf(reflect.TypeOf(cfg), "") {
		_, setNow := os.LookupEnv(EnvPrefix + v.name)
		if _, setOld := os.LookupEnv(EnvPrefix + v.old); v.old != "" && setOld && !setNow {
			outdated[v.old] = v.name
		}
	}
	return outdated
}

// allVariables are those of every service: what one environment sets for several of them is no mistake of those that do
// not read it.
//
//go:embed variables.txt
var allVariables string

var (
	listIndex = regexp.MustCompile(`_[0-9]+_`)
	// foreign is what Kubernetes and Docker tell every container of a service that is called btcpool.
	foreign = regexp.MustCompile(`^(\w+_)?(SERVICE_HOST=|SERVICE_PORT(_\w+)?=|PORT=\w+://|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=)`)
)

// unknownVariables reports the variables that begin with EnvPrefix and set nothing of cfg, a struct, nor of any other
// service.
func unknownVariables(cfg any) error {
	own := Variables(cfg)
	known := append(strings.Fields(allVariables), own...)
	var errs []error
	for _, set := range os.Environ() {
		set, ours := strings.CutPrefix(set, EnvPrefix)
		name, _, _ := strings.Cut(set, "=")
		if ours && !slices.Contains(known, listIndex.ReplaceAllString(name, "_#_")) && !foreign.MatchString(set) {
			errs = append(errs, fmt.Errorf("environment: unknown variable %s%s%s", EnvPrefix, name, meant(name, own)))
		}
	}
	return errors.Join(errs...)
}

// meant says which of names was perhaps meant by name.
func meant(name string, names []string) string {
	best, least := "", max(3, len(name)/4)
	for _, candidate := range names {
		candidate = strings.ReplaceAll(candidate, "#", "0")
		if d := distance(name, candidate); d < least {
			best, least = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": %s%s is known", EnvPrefix, best)
}

// distance is how many letters of a must be put in, left out or changed to make b of it.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
