package sserver

import (
	"context"
	"reflect"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/service"
	"btcpool/internal/store"
)

// userLists are the lists of all listeners, one for each source.
type userLists struct {
	database store.Config
	log      zerolog.Logger
	lists    []*userList
}

func newUserLists(cfg Config, deps service.Deps) (*userLists, error) {
	l := &userLists{database: cfg.Database, log: deps.Log.With().Str("component", "users").Logger()}
	m := newUserMetrics(deps.Metrics)
	for _, place := range cfg.places() {
		if l.of(place) != nil {
			continue
		}
		settings := cfg.Users
		settings.UserSource = *place.Users
		u, err := openUserList(settings, cfg.DataDir, l.log, m)
		if err != nil {
			return nil, err
		}
		l.lists = append(l.lists, u)
	}
	return l, nil
}

// of returns the list of those who may mine at a listener that places returned.
func (l *userLists) of(place Listener) *userList {
	same := func(u *userList) bool { return reflect.DeepEqual(u.cfg.UserSource, *place.Users) }
	if i := slices.IndexFunc(l.lists, same); i >= 0 {
		return l.lists[i]
	}
	return nil
}

// run keeps the lists up to date until ctx ends.
func (l *userLists) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	var inDatabase []*userList
	for _, u := range l.lists {
		if u.cfg.Source == StaticUsers {
			continue // complete as it is
		}
		defer close(u.ended)
		if u.cfg.inDatabase() {
			inDatabase = append(inDatabase, u)
			continue
		}
		g.Go(func() error {
			api := newUserAPI(u.cfg.UserSource)
			defer api.client.CloseIdleConnections()
			u.follow(ctx, api)
			return nil
		})
	}
	if len(inDatabase) > 0 {
		g.Go(func() error { return l.followDatabase(ctx, inDatabase) })
	}
	return g.Wait()
}

func (l *userLists) followDatabase(ctx context.Context, lists []*userList) error {
	db, err := store.Connect(ctx, l.database, l.log)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer db.Close()
	var wg sync.WaitGroup
	for _, u := range lists {
		wg.Go(func() { u.follow(ctx, userTable{db}) })
	}
	wg.Wait()
	return nil
}

// pageRows is how many users are read from the database at a time.
const pageRows = 10_000

// userTable is the users' table in the database.
type userTable struct{ db *store.Store }

// list is userDirectory.list.
func (t userTable) list(ctx context.Context, after int32) (map[string]int32, error) {
	return t.db.UsersAfter(ctx, after, pageRows)
}

// find is userDirectory.find: it creates the user.
func (t userTable) find(ctx context.Context, name string) (int32, error) {
	return t.db.UserID(ctx, name, true)
}

type userMetrics struct {
	known    *prometheus.GaugeVec   // list
	readings *prometheus.CounterVec // list, result
}

func newUserMetrics(reg prometheus.Registerer) *userMetrics {
	f := promauto.With(reg)
	return &userMetrics{
		known: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "btcpool_sserver_users",
			Help: "Users known, by list.",
		}, []string{"list"}),
		readings: f.NewCounterVec(prometheus.CounterOpts{
			Name: "btcpool_sserver_user_readings_total",
			Help: "Readings of the users' source, of new users and of all.",
		}, []string{"list", "result"}),
	}
}
