package sserver_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// description is an OpenAPI file, as much of it as is used.
type description map[string]any

func parseDescription(tb testing.TB, text []byte) description {
	tb.Helper()
	var d object
	if err := yaml.Unmarshal(text, &d); err != nil {
		tb.Fatal(err)
	}
	return d
}

// at follows keys, and references on the way.
func (d description) at(keys ...string) object {
	return d.from(object(d), keys...)
}

func (d description) from(node object, keys ...string) object {
	for _, key := range keys {
		next, _ := node[key].(object)
		if ref, ok := next["$ref"].(string); ok {
			next = d.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
		}
		node = next
	}
	return node
}

func (d description) paths() map[string][]string {
	all := make(map[string][]string)
	for path := range d.at("paths") {
		for _, method := range slices.Sorted(maps.Keys(d.at("paths", path))) {
			all[path] = append(all[path], strings.ToUpper(method))
		}
	}
	return all
}

// check holds an answer against what is described.
func (d description) check(method, path string, status int, text string) []string {
	responses := d.at("paths", path, strings.ToLower(method), "responses")
	response := d.from(responses, fmt.Sprint(status))
	if response == nil {
		response = d.from(responses, "default")
	}
	var value any
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return []string{err.Error()}
	}
	return d.compare("answer", d.from(response, "content", "application/json", "schema"), value)
}

// flat joins what allOf lists.
func (d description) flat(s object) object {
	parts, ok := s["allOf"].([]any)
	if !ok {
		return s
	}
	joined, required := object{}, []any{}
	for _, part := range parts {
		p := d.flat(d.from(object{"part": part}, "part"))
		maps.Copy(joined, p["properties"].(object))
		list, _ := p["required"].([]any)
		required = append(required, list...)
	}
	return object{"type": "object", "properties": joined, "required": required}
}

func (d description) compare(where string, s object, value any) (faults []string) {
	if s == nil {
		return []string{where + ": has no schema"}
	}
	fault := func(format string, args ...any) { faults = append(faults, where+": "+fmt.Sprintf(format, args...)) }
	s = d.flat(s)
	var name string
	switch v := value.(type) {
	case nil:
		name = "null"
	case bool:
		name = "boolean"
	case string:
		name = "string"
		if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, any(v)) {
			fault("%q is none of %v", v, enum)
		}
	case json.Number:
		name = "number"
		if _, err := v.Int64(); err == nil {
			name = "integer"
		}
	case []any:
		name = "array"
		for i, item := range v {
			faults = append(faults, d.compare(fmt.Sprintf("%s[%d]", where, i), d.from(s, "items"), item)...)
		}
	case object:
		name = "object"
		properties, _ := s["properties"].(object)
		required, _ := s["required"].([]any)
		for _, key := range required {
			if _, ok := v[key.(string)]; !ok {
				fault("%s is described but not answered", key)
			}
		}
		for key, field := range v {
			if properties[key] == nil || !slices.Contains(required, any(key)) {
				fault("%s is answered but not described as required", key)
				continue
			}
			faults = append(faults, d.compare(where+"."+key, d.from(properties, key), field)...)
		}
	}
	types, ok := s["type"].([]any)
	if !ok {
		types = []any{s["type"]}
	}
	number := name == "integer" && slices.Contains(types, any("number"))
	if !number && !slices.Contains(types, any(name)) {
		fault("is %s, described as %v", name, types)
	}
	return faults
}
