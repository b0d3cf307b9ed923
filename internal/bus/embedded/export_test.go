package embedded

import "net"

// ApplyRetention does at once what is done each minute.
func (b *Broker) ApplyRetention() { b.cluster.ApplyRetention() }

// Guard is what the broker's listener makes of a connection.
func Guard(conn net.Conn) net.Conn { return &guardedConn{Conn: conn} }
