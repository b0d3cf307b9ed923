package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	selectUser       = `SELECT puid FROM users WHERE name = ?`
	selectUsers      = `SELECT name, puid FROM users`
	selectUsersAfter = `SELECT name, puid FROM users WHERE puid > ? ORDER BY puid LIMIT ?`
	selectUserNames  = `SELECT puid, name FROM users WHERE puid IN `
	insertUser       = `INSERT INTO users (name, created_at) VALUES (?, ?)`
)

// UserID returns the id, above 0, of the user called name; upper and lower case differ. A name not yet there gets an id
// when create is set, else the error is ErrNotFound.
func (s *Store) UserID(ctx context.Context, name string, create bool) (int32, error) {
	// What the column would cut, or MySQL compare as equal, must not lead to somebody else's id.
	if name == "" || len(name) > 255 || !utf8.ValidString(name) || strings.TrimSpace(name) != name {
		return 0, fmt.Errorf("user name %.50q: must be 1 to 255 bytes of UTF-8 without spaces around it", name)
	}
	id, err := s.userID(ctx, name)
	if !create || !errors.Is(err, ErrNotFound) {
		return id, err
	}
	_, err = s.db.ExecContext(ctx, insertUser+s.onConflict([]string{"name"}), name, timestamp(time.Now()))
	if err != nil {
		return 0, fmt.Errorf("add user %s: %w", name, err)
	}
	return s.userID(ctx, name)
}

func (s *Store) userID(ctx context.Context, name string) (int32, error) {
	var id int32
	err := s.db.QueryRowContext(ctx, selectUser, name).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return 0, fmt.Errorf("user %s: %w", name, err)
	}
	return id, nil
}

// Users returns the ids of all users by name.
func (s *Store) Users(ctx context.Context) (map[string]int32, error) {
	return queryMap[string, int32](ctx, s, "users", selectUsers)
}

// UserNames returns the names of the users with those ids, as far as there are such.
func (s *Store) UserNames(ctx context.Context, ids []int32) (map[int32]string, error) {
	names := make(map[int32]string, len(ids))
	for chunk := range slices.Chunk(ids, chunkRows) {
		args := make([]any, len(chunk))
		for i, id := range chunk {
			args[i] = id
		}
		some, err := queryMap[int32, string](ctx, s, "names of users", selectUserNames+"(?"+strings.Repeat(", ?", len(chunk)-1)+")", args...)
		if err != nil {
			return nil, err
		}
		maps.Copy(names, some)
	}
	return names, nil
}

// UsersAfter returns the ids by name of the users above id, at most n of them: those with the lowest ids.
func (s *Store) UsersAfter(ctx context.Context, id int32, n int) (map[string]int32, error) {
	return queryMap[string, int32](ctx, s, "users", selectUsersAfter, id, n)
}

// UserIDs returns the ids that a name belongs to, whether the name came from here or from what other lists told sserver.
func (s *Store) UserIDs(ctx context.Context, name string) (ids []int32, err error) {
	for _, text := range []string{
		"SELECT puid, name FROM users WHERE name = ?",
		"SELECT DISTINCT puid, user_name FROM mining_workers WHERE user_name = ?",
	} {
		found, err := queryMap[int32, string](ctx, s, "users", text, name)
		if err != nil {
			return nil, err
		}
		for id, has := range found {
			if has == name && !slices.Contains(ids, id) { // the engine may compare more loosely
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	return ids, nil
}
