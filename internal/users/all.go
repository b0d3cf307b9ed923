package users

import "maps"

// Size returns how many users are known. Unless it or Version has changed, All is the same.
func (l *List) Size() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.ids)
}

// All returns the ids of all users that are known, by canonical name.
func (l *List) All() map[string]int32 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return maps.Clone(l.ids)
}
