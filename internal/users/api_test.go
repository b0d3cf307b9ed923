package users

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"btcpool/internal/testkit"

	"github.com/google/go-cmp/cmp"
)

// testAPI is a pool's web site: two users an answer.
type testAPI struct {
	*httptest.Server

	mu       sync.Mutex
	users    map[string]int32
	spoilt   string   // instead of any answer
	asked    []string // last_id of each
	register func(name string) string
	posted   []string
}

func startAPI(t *testing.T, users map[string]int32) *testAPI {
	a := &testAPI{users: users}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

func (a *testAPI) source() Source {
	return Source{Kind: API, ListURL: a.URL + "/list?secret=x"}
}

func (a *testAPI) change(do func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	do()
}

func (a *testAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Method == http.MethodPost {
		var user struct{ Name string }
		if err := json.NewDecoder(r.Body).Decode(&user); err != nil || r.Header.Get("Content-Type") != "application/json" {
			http.Error(w, "bad", http.StatusBadRequest)
			return
		}
		a.posted = append(a.posted, user.Name)
		_, _ = io.WriteString(w, a.register(user.Name))
		return
	}
	if a.spoilt != "" {
		_, _ = io.WriteString(w, a.spoilt)
		return
	}
	var last int32
	a.asked = append(a.asked, r.FormValue("last_id"))
	_, _ = fmt.Sscan(r.FormValue("last_id"), &last)
	names := slices.SortedFunc(maps.Keys(a.users), func(x, y string) int { return int(a.users[x] - a.users[y]) })
	names = slices.DeleteFunc(names, func(name string) bool { return a.users[name] <= last })
	page := make(map[string]int32)
	for _, name := range names[:min(2, len(names))] {
		page[name] = a.users[name]
	}
	if len(page) == 0 {
		_, _ = io.WriteString(w, `{"err_no":0,"err_msg":null,"data":[]}`) // as PHP does
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"err_no": 0, "err_msg": nil, "data": page})
}

func TestPages(t *testing.T) {
	t.Parallel()
	api := startAPI(t, map[string]int32{"a": 1, "B": 2, "c": 3, "d": 5, "e": 8})
	l, _ := quick(t, api.source()).start(t)
	l.becomes(t, map[string]int32{"a": 1, "b": 2, "c": 3, "d": 5, "e": 8})
	<-l.ready
	api.change(func() {
		if diff := cmp.Diff([]string{"0", "2", "5", "8"}, api.asked[:4]); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
		api.users["f"] = 9
	})
	l.becomes(t, map[string]int32{"a": 1, "b": 2, "c": 3, "d": 5, "e": 8, "f": 9})
}

func TestChanges(t *testing.T) {
	t.Parallel()
	api := startAPI(t, map[string]int32{"a": 1, "b": 2, "c": 3})
	s := quick(t, api.source())
	l, stop := s.start(t)
	l.becomes(t, map[string]int32{"a": 1, "b": 2, "c": 3})
	if got := l.Version(); got != 0 {
		t.Errorf("version %d", got)
	}
	api.change(func() {
		delete(api.users, "b")
		api.users["c"], api.users["C"] = 7, 9 // the older user has the name
	})
	l.becomes(t, map[string]int32{"a": 1, "c": 7})
	if got := l.Version(); got != 1 {
		t.Errorf("version %d", got)
	}
	if _, err := l.ID(t.Context(), "b"); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed user: %v", err)
	}
	for _, spoilt := range []string{
		"<html>", `{"err_no":0}`, `{"err_no":1,"err_msg":"no","data":{"a":5}}`, `{"err_no":0,"data":{"a":{}}}`,
		`{"err_no":0,"data":{}}`, `{"err_no":0,"data":["a"]}`, `{"err_no":0,"data":{"a":0,"b":-1,"c":2147483648}}`,
	} {
		failed := l.failures()
		api.change(func() { api.spoilt = spoilt })
		testkit.Eventually(t, spoilt, func() bool { return l.failures() >= failed+2 }) // one may have begun before
		if diff := cmp.Diff(map[string]int32{"a": 1, "c": 7}, l.copyOfIDs()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", spoilt, diff)
		}
	}
	stop()

	// Without the API.
	api.Close()
	l, _ = s.start(t)
	if diff := cmp.Diff(map[string]int32{"a": 1, "c": 7}, l.copyOfIDs()); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
}

func TestSilentAPI(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	api := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-over }))
	t.Cleanup(api.Close)
	t.Cleanup(func() { close(over) })
	s := quick(t, Source{Kind: API, ListURL: api.URL})
	s.LoginDeadline = 1e7
	l, stop := s.start(t)
	if _, err := l.ID(t.Context(), "alice"); !errors.Is(err, errAway) {
		t.Errorf("unknown user: %v", err)
	}
	stop()
	if _, err := l.ID(t.Context(), "alice"); !errors.Is(err, errAway) {
		t.Errorf("when all is over: %v", err)
	}
}

func TestAPIAnswerTooLong(t *testing.T) {
	t.Parallel()
	chunk := strings.Repeat(" ", 1<<20)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range maxAPIAnswer>>20 + 1 {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	api := &api{listURL: server.URL + "/list?key=secret"}
	defer api.client.CloseIdleConnections()
	_, err := api.list(t.Context(), 0)
	if err == nil || !strings.Contains(err.Error(), "longer") || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
}

func TestRegistration(t *testing.T) {
	t.Parallel()
	api := startAPI(t, map[string]int32{"a": 1})
	api.register = func(name string) string {
		switch name {
		case "broken":
			return "<html>"
		case "refused":
			return `{"err_no":7,"err_msg":"no such account","data":null}`
		}
		api.users[name] = 5
		return `{"err_no":0,"err_msg":null,"data":{"` + strings.ToUpper(name) + `":5}}`
	}
	source := api.source()
	source.RegisterURL = api.URL + "/register"
	l, _ := quick(t, source).start(t)
	for _, tt := range []struct {
		name string
		id   int32
	}{{"a", 1}, {"new", 5}, {"new", 5}, {"refused", 0}, {"refused", 0}} {
		id, err := l.ID(t.Context(), tt.name)
		if id != tt.id || (id == 0) != errors.Is(err, ErrUnknown) {
			t.Errorf("%s: id %d, %v", tt.name, id, err)
		}
	}
	if _, err := l.ID(t.Context(), "broken"); err == nil || errors.Is(err, ErrUnknown) {
		t.Errorf("broken answer: %v", err)
	}
	api.change(func() {
		if diff := cmp.Diff([]string{"new", "refused", "broken"}, api.posted); diff != "" {
			t.Errorf("registered (-want +got):\n%s", diff)
		}
	})
	l.becomes(t, map[string]int32{"a": 1, "new": 5})
}

func FuzzParseUsers(f *testing.F) {
	for _, text := range []string{
		`{"err_no":0,"err_msg":null,"data":{"alice":1,"bob":"2","zero":0,"big":2147483648,"half":1.5}}`,
		`{"err_no":0,"err_msg":null,"data":[]}`, `{"err_no":0,"data":null}`, `{"err_no":1,"err_msg":"no"}`, `{"data":{"":1}}`, `[]`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		users, err := parseUsers(text)
		if err != nil {
			if users != nil {
				t.Fatal("users and an error")
			}
			return
		}
		for name, id := range users {
			if name == "" || id <= 0 {
				t.Fatalf("user %q has id %d", name, id)
			}
		}
		again, err := json.Marshal(map[string]any{"data": users})
		if err != nil {
			t.Fatal(err)
		}
		if users == nil {
			return
		}
		got, err := parseUsers(again)
		if diff := cmp.Diff(users, got); err != nil || diff != "" {
			t.Fatalf("not stable: %v\n%s", err, diff)
		}
	})
}
