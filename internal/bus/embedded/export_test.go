package embedded

// ApplyRetention does at once what is done each minute.
func (b *Broker) ApplyRetention() { b.cluster.ApplyRetention() }
