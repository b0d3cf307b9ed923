//go:build !unix

package poll

import "errors"

type relay struct{}

func (*relay) take([]byte, error) bool { return false }

func (*stream) Pass() (int, error) { return -1, errors.ErrUnsupported }

func (*stream) Copy() (int, error) { return -1, errors.ErrUnsupported }

func (*stream) Keep() {}

func (*stream) Leave() func() { return nil }
