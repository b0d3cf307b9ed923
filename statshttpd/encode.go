package statshttpd

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"hash/fnv"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// send answers with body, compressed for whoever takes that, or with nothing where the requester has it.
func send(w http.ResponseWriter, r *http.Request, body []byte) {
	sendPacked(w, r, body, func(_ string, c coding) []byte { return packQuickly(c, body) })
}

// sendPacked is send with another way to compress the body, which has that tag.
func sendPacked(w http.ResponseWriter, r *http.Request, body []byte, packed func(tag string, c coding) []byte) {
	h := w.Header()
	h.Add("Vary", "Accept-Encoding")
	sum := fnv.New64a()
	_, _ = sum.Write(body) // never fails
	tag := fmt.Sprintf(`W/"%x"`, sum.Sum64())
	h.Set("ETag", tag)
	if hasTag(r.Header.Get("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if len(body) >= packFrom {
		if c := codingFor(strings.Join(r.Header.Values("Accept-Encoding"), ",")); c != asIs {
			h.Set("Content-Encoding", string(c))
			body = packed(tag, c)
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) //nolint:gosec // JSON, with its type and nosniff; and the requester may be gone
}

func hasTag(list, tag string) bool {
	weak := func(t string) string { return strings.TrimPrefix(strings.TrimSpace(t), "W/") }
	for t := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(t) == "*" || list != "" && weak(t) == weak(tag) {
			return true
		}
	}
	return false
}

// cors lets pages of the configured origins read what is answered.
func (s *Service) cors(next http.Handler) http.Handler {
	if len(s.cfg.CORSOrigins) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		switch {
		case slices.Contains(s.cfg.CORSOrigins, "*"):
			origin = "*"
		case !slices.Contains(s.cfg.CORSOrigins, origin):
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "ETag")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", "GET, HEAD")
			h.Set("Access-Control-Allow-Headers", "If-None-Match")
			h.Set("Access-Control-Max-Age", "86400")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// table makes CSV of an answer: a row for each element of its list, or of its series; columns are called as in JSON, what
// is inside of something by both names and a dot.
func table(answer any) []byte {
	v := reflect.Indirect(reflect.ValueOf(answer))
	var header []string
	var rows [][]string
	var start time.Time
	var width time.Duration
	for i := range v.NumField() {
		field, name := v.Field(i), v.Type().Field(i).Tag.Get("json")
		switch {
		case name == "start":
			start = field.Interface().(time.Time)
		case name == "step_seconds":
			width = time.Duration(field.Int()) * time.Second
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct && width == 0:
			if name == "luck" {
				continue
			}
			header, rows = nil, nil
			columns(field.Type().Elem(), "", &header)
			for j := range field.Len() {
				var row []string
				cells(field.Index(j), &row)
				rows = append(rows, row)
			}
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Pointer:
			if header == nil {
				header = []string{"time"}
				rows = make([][]string, field.Len())
				for j := range rows {
					rows[j] = []string{start.Add(time.Duration(j) * width).Format(time.RFC3339)}
				}
			}
			header = append(header, name)
			for j := range field.Len() {
				cells(field.Index(j), &rows[j])
			}
		case field.Kind() == reflect.Slice && width != 0: // rejects by reason
			for _, of := range field.Interface().([]reasonsByTimes) {
				header = append(header, of.Reason)
				for j, d := range of.Difficulty {
					rows[j] = append(rows[j], strconv.FormatFloat(d, 'f', -1, 64))
				}
			}
		}
	}
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.UseCRLF = true
	_ = w.Write(header) // memory never fails
	_ = w.WriteAll(rows)
	return b.Bytes()
}

var timeType = reflect.TypeFor[time.Time]()

// columns appends the names of what cells appends.
func columns(t reflect.Type, before string, names *[]string) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Slice:
	case t.Kind() != reflect.Struct || t == timeType:
		*names = append(*names, before)
	default:
		for i := range t.NumField() {
			f := t.Field(i)
			name := f.Tag.Get("json")
			switch {
			case f.Anonymous:
				name = before
			case before != "":
				name = before + "." + name
			}
			columns(f.Type, name, names)
		}
	}
}

func cells(v reflect.Value, row *[]string) {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			var names []string
			columns(v.Type(), "", &names)
			*row = append(*row, make([]string, len(names))...)
			return
		}
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Slice:
	case reflect.String:
		*row = append(*row, harmless(v.String()))
	case reflect.Float64:
		*row = append(*row, strconv.FormatFloat(v.Float(), 'f', -1, 64))
	case reflect.Struct:
		if v.Type() == timeType {
			*row = append(*row, v.Interface().(time.Time).Format(time.RFC3339))
			return
		}
		for i := range v.NumField() {
			cells(v.Field(i), row)
		}
	default:
		*row = append(*row, fmt.Sprint(v.Interface()))
	}
}

// harmless keeps spreadsheets from taking a name for a formula. A number is none.
func harmless(text string) string {
	if text == "" || !strings.ContainsRune("=+-@\t\r\n|%", rune(text[0])) {
		return text
	}
	if _, err := strconv.ParseInt(text, 10, 64); err == nil {
		return text
	}
	return "'" + text
}
