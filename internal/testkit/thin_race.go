//go:build race

package testkit

// Thin is as in thin.go.
const Thin = 5
