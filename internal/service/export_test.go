package service

// SetLimit changes how much the file may hold, in bytes.
func (l *LogFile) SetLimit(limit int64) { l.limit = limit }
