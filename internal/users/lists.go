package users

import (
	"context"
	"reflect"
	"slices"
	"sync"

	"github.com/rs/zerolog"

	"btcpool/internal/store"
	"btcpool/internal/telemetry"
)

// Lists are the lists of all that a server's listeners admit, one for each source.
type Lists struct {
	database store.Config
	log      zerolog.Logger
	lists    []*List
}

// New opens the lists of sources, with what their snapshots in dir know. The database is used by Run only, and only for
// sources that are kept there. Metrics are named after the service.
func New(service string, cfg Config, sources []Source, dir string, database store.Config, deps telemetry.Deps) (*Lists, error) {
	l := &Lists{database: database, log: deps.Log.With().Str("component", "users").Logger()}
	m := newMetrics(deps.Metrics, service)
	for _, source := range sources {
		if l.Of(source) != nil {
			continue
		}
		cfg.Source = source
		list, err := open(cfg, dir, l.log, m)
		if err != nil {
			return nil, err
		}
		l.lists = append(l.lists, list)
	}
	return l, nil
}

// Of returns the list of one of the sources that New was given.
func (l *Lists) Of(source Source) *List {
	same := func(list *List) bool { return reflect.DeepEqual(list.cfg.Source, source) }
	if i := slices.IndexFunc(l.lists, same); i >= 0 {
		return l.lists[i]
	}
	return nil
}

// Ready reports whether all lists have been read.
func (l *Lists) Ready() bool {
	for _, list := range l.lists {
		select {
		case <-list.ready:
		default:
			return false
		}
	}
	return true
}

// Run keeps the lists up to date until ctx ends.
func (l *Lists) Run(ctx context.Context) {
	var following sync.WaitGroup
	var inDatabase []*List
	for _, list := range l.lists {
		if list.cfg.Kind == Static {
			continue // complete as it is
		}
		defer close(list.ended)
		if list.cfg.InDatabase() {
			inDatabase = append(inDatabase, list)
			continue
		}
		following.Go(func() {
			api := &api{listURL: list.cfg.ListURL, register: list.cfg.RegisterURL}
			defer api.client.CloseIdleConnections()
			list.follow(ctx, api)
		})
	}
	if len(inDatabase) > 0 {
		following.Go(func() { l.followDatabase(ctx, inDatabase) })
	}
	following.Wait()
}

func (l *Lists) followDatabase(ctx context.Context, lists []*List) {
	db, err := store.Connect(ctx, l.database, l.log)
	if err != nil {
		return // ctx has ended
	}
	defer db.Close()
	var wg sync.WaitGroup
	for _, list := range lists {
		wg.Go(func() { list.follow(ctx, table{db}) })
	}
	wg.Wait()
}
