package poll

// OnlyStreams makes links streams that could be sockets.
func (l *Listener) OnlyStreams() {
	if l.sockets != nil {
		l.sockets.close()
		l.sockets = nil
	}
}
