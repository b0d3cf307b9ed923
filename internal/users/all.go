package users

import "maps"

// All returns the ids of all users that are known, by canonical name.
func (l *List) All() map[string]int32 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return maps.Clone(l.ids)
}
