package sserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/store"
)

var (
	errUnknownUser    = errors.New("unknown user")
	errNoUserDatabase = errors.New("user database is away")
)

const (
	// maxLookups bounds how many logins ask the database at a time.
	maxLookups = 8
	// snapshotInterval is how often a changed list of users is written.
	snapshotInterval = 5 * time.Second
	maxUserList      = 64 << 20 // bytes of a snapshot or an API's answer
)

// userList knows the ids of users by name. What it learned survives in a
// snapshot, so that known users log in while their source is away.
type userList struct {
	cfg      Config
	log      zerolog.Logger
	snapshot string         // file
	lookups  chan struct{}  // places of those that ask the database
	looking  sync.WaitGroup // their goroutines
	opened   chan struct{}  // closed when the database is there for the first time

	mu    sync.RWMutex
	ids   map[string]int32
	dirty bool         // ids differ from the snapshot
	db    *store.Store // nil while it is away; u.looking grows only while it is not
}

func newUserList(cfg Config, log zerolog.Logger) (*userList, error) {
	u := &userList{
		cfg:      cfg,
		log:      log.With().Str("component", "users").Logger(),
		snapshot: filepath.Join(cfg.DataDir, "users.json"),
		lookups:  make(chan struct{}, maxLookups),
		opened:   make(chan struct{}),
		ids:      make(map[string]int32),
	}
	if cfg.Users.Source == StaticUsers {
		for name, id := range cfg.Users.Static {
			u.ids[u.fold(name)] = id
		}
		return u, nil
	}
	text, err := os.ReadFile(u.snapshot)
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	if err != nil {
		return nil, err
	}
	ids := make(map[string]int32)
	if err := json.Unmarshal(text, &ids); err != nil {
		u.log.Warn().Err(err).Str("file", u.snapshot).Msg("snapshot of users is damaged, starting without it")
		return u, nil
	}
	u.learn(ids)
	u.dirty = false
	return u, nil
}

func (u *userList) fold(name string) string {
	if u.cfg.Users.CaseInsensitive {
		return strings.ToLower(name)
	}
	return name
}

// id returns the id of the user called name, errUnknownUser, or another error
// when that cannot be said in time.
func (u *userList) id(ctx context.Context, name string) (int32, error) {
	u.mu.RLock()
	id, known := u.ids[name]
	u.mu.RUnlock()
	if known {
		return id, nil
	}
	if u.cfg.Users.Source != OpenUsers {
		return 0, errUnknownUser
	}
	ctx, cancel := context.WithTimeout(ctx, u.cfg.Users.LoginDeadline.Std())
	defer cancel()
	select {
	case <-u.opened:
	case <-ctx.Done():
		return 0, errNoUserDatabase
	}
	select {
	case u.lookups <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	found := make(chan lookup, 1)
	if !u.look(ctx, name, found) {
		<-u.lookups
		return 0, errNoUserDatabase
	}
	select {
	case l := <-found:
		return l.id, l.err
	case <-ctx.Done(): // which a database driver may not notice
		return 0, ctx.Err()
	}
}

// lookup is the database's answer.
type lookup struct {
	id  int32
	err error
}

// look asks the database in a goroutine that gives back its place in u.lookups.
// It is false when there is no database.
func (u *userList) look(ctx context.Context, name string, found chan<- lookup) bool {
	u.mu.RLock()
	defer u.mu.RUnlock()
	db := u.db
	if db == nil {
		return false
	}
	u.looking.Go(func() {
		defer func() { <-u.lookups }()
		id, err := db.UserID(ctx, name, true)
		if err == nil {
			u.learn(map[string]int32{name: id})
		}
		found <- lookup{id, err}
	})
	return true
}

// learn takes the entries of ids that can be true and returns the largest id.
func (u *userList) learn(ids map[string]int32) (largest int32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for name, id := range ids {
		name = u.fold(name)
		if name == "" || len(name) > maxUserName || id <= 0 {
			continue
		}
		largest = max(largest, id)
		if u.ids[name] != id {
			u.ids[name] = id
			u.dirty = true
		}
	}
	return largest
}

// run keeps the list up to date until ctx ends.
func (u *userList) run(ctx context.Context) error {
	if u.cfg.Users.Source == StaticUsers {
		return nil
	}
	var wg sync.WaitGroup
	wg.Go(func() { u.keepSnapshot(ctx) })
	defer wg.Wait()
	if u.cfg.Users.Source == APIUsers {
		u.poll(ctx)
		return nil
	}
	db, err := store.Connect(ctx, u.cfg.Database, u.log)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer db.Close()
	if ids, err := db.Users(ctx); err != nil {
		u.log.Warn().Err(err).Msg("users not read, asking for each")
	} else {
		u.learn(ids)
	}
	u.setDatabase(db)
	close(u.opened)
	<-ctx.Done()
	u.setDatabase(nil)
	u.looking.Wait()
	return nil
}

func (u *userList) setDatabase(db *store.Store) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.db = db
}

func (u *userList) keepSnapshot(ctx context.Context) {
	ticker := time.NewTicker(snapshotInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			u.writeSnapshot()
			return
		case <-ticker.C:
			u.writeSnapshot()
		}
	}
}

func (u *userList) writeSnapshot() {
	u.mu.Lock()
	if !u.dirty {
		u.mu.Unlock()
		return
	}
	u.dirty = false
	ids := maps.Clone(u.ids)
	u.mu.Unlock()

	text, err := json.Marshal(ids)
	if err == nil {
		err = replaceFile(u.snapshot, text)
	}
	if err != nil {
		u.log.Warn().Err(err).Msg("users not written")
		u.mu.Lock()
		u.dirty = true
		u.mu.Unlock()
	}
}

// replaceFile leaves either the old contents or the new.
func replaceFile(path string, text []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// poll asks the API for users that are new, as btcpool does: those above the
// largest id seen.
func (u *userList) poll(ctx context.Context) {
	client := &http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	ticker := time.NewTicker(u.cfg.Users.ListInterval.Std())
	defer ticker.Stop()
	var last int32
	for {
		ids, err := u.fetch(ctx, client, last)
		if err == nil {
			largest := u.learn(ids)
			if largest > last {
				last = largest
				continue // there may be another page
			}
		} else if ctx.Err() == nil {
			u.log.Warn().Err(err).Msg("users not fetched")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (u *userList) fetch(ctx context.Context, client *http.Client, last int32) (map[string]int32, error) {
	list, err := url.Parse(u.cfg.Users.ListURL)
	if err != nil {
		return nil, err
	}
	query := list.Query()
	query.Set("last_id", strconv.Itoa(int(last)))
	list.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, list.String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", list.Redacted(), res.Status)
	}
	var answer struct {
		ErrNo  int              `json:"err_no"`
		ErrMsg *string          `json:"err_msg"`
		Data   map[string]int32 `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxUserList)).Decode(&answer); err != nil {
		return nil, fmt.Errorf("answer of %s: %w", list.Redacted(), err)
	}
	if answer.ErrNo != 0 || answer.Data == nil {
		message := "no data"
		if answer.ErrMsg != nil {
			message = *answer.ErrMsg
		}
		return nil, fmt.Errorf("%s answered error %d: %.200s", list.Redacted(), answer.ErrNo, message)
	}
	return answer.Data, nil
}

func validateListURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("users.list_id_api_url = %q: must be an http or https URL", text)
	}
	return nil
}
