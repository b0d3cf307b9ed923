package sserver

import "net"

// AdminAddr returns where the operator's requests go.
func (s *Service) AdminAddr() net.Addr { return s.admin.Addr() }
