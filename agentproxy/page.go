package agentproxy

import (
	"cmp"
	"embed"
	"errors"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"

	"btcpool/internal/httpapi"
)

// maxWorkersShown bounds an answer.
const maxWorkersShown = 1000

//go:embed web openapi.yaml
var files embed.FS

var errNoSuchPath = httpapi.Errorf(http.StatusNotFound, "not_found", "there is nothing at this path")

func (s *Service) handler() http.Handler {
	mux := http.NewServeMux()
	web, _ := fs.Sub(files, "web") // is there
	mux.Handle("GET /{$}", http.FileServerFS(web))
	mux.Handle("GET /{name}", http.FileServerFS(web))
	mux.HandleFunc("GET /api/v1/openapi.yaml", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, files, "openapi.yaml")
	})
	mux.HandleFunc("GET /api/v1/summary", s.answer(func(snap *snapshot, q *httpapi.Query) (any, error) { return snap.summary, q.Done() }))
	mux.HandleFunc("GET /api/v1/workers", s.answer(findWorkers))
	mux.HandleFunc("/api/", func(w http.ResponseWriter, _ *http.Request) { httpapi.Refuse(w, errNoSuchPath) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

func (s *Service) answer(f func(*snapshot, *httpapi.Query) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := httpapi.ParseQuery(r.URL.RawQuery, "invalid_parameter")
		snap, err := s.look(r.Context())
		var answer any
		if err == nil {
			answer, err = f(snap, q)
		}
		var refusal *httpapi.Error
		switch {
		case errors.As(err, &refusal):
			httpapi.Refuse(w, refusal)
		case err != nil:
			httpapi.Refuse(w, httpapi.Errorf(http.StatusServiceUnavailable, "unavailable", "the proxy is busy, try again"))
		default:
			w.Header().Set("Cache-Control", "no-cache")
			httpapi.Write(w, http.StatusOK, answer)
		}
	}
}

// findWorkers answers a search.
func findWorkers(snap *snapshot, q *httpapi.Query) (any, error) {
	text := strings.ToLower(q.Text("q", "", 100))
	only := q.Choice("only", "", "silent")
	order := q.Choice("sort", "-hashrate", "hashrate", "name", "-name", "ip", "-ip", "last_share", "-last_share", "rejected", "-rejected")
	limit := q.Integer("limit", 100, 1, maxWorkersShown)
	offset := q.Integer("offset", 0, 0, 2*maxMiners)
	if err := q.Done(); err != nil {
		return nil, err
	}
	found := make([]worker, 0, len(snap.workers))
	for _, w := range snap.workers {
		if only != "" && !w.Silent {
			continue
		}
		if text == "" || strings.Contains(strings.ToLower(w.Account+"."+w.Name+" "+w.IP+" "+w.Software), text) {
			found = append(found, w)
		}
	}
	by, down := strings.CutPrefix(order, "-")
	slices.SortFunc(found, func(a, b worker) int {
		n := 0
		switch by {
		case "hashrate":
			n = cmp.Compare(orZero(a.Hashrate), orZero(b.Hashrate))
		case "ip":
			n = cmp.Compare(a.IP, b.IP)
		case "last_share":
			n = lastShare(a).Compare(lastShare(b))
		case "rejected":
			n = cmp.Compare(a.Rejected, b.Rejected)
		case "name":
			n = cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Name, b.Name))
		}
		if down {
			n = -n
		}
		return cmp.Or(n, cmp.Compare(a.Name, b.Name), cmp.Compare(a.IP, b.IP))
	})
	from := min(offset, len(found))
	return workers{Total: len(found), Workers: found[from:min(from+limit, len(found))]}, nil
}

func orZero(f *float64) float64 {
	if f == nil {
		return 0
	}
	return *f
}

func lastShare(w worker) time.Time {
	if w.LastShare == nil {
		return time.Time{}
	}
	return *w.LastShare
}
