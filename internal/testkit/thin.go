//go:build !race

package testkit

// Thin is how many of the values, places or rounds that a test goes through it takes one of: every one. The race
// detector makes each many times slower and finds no more in all of them: there it is one of several, and test/all.sh
// runs the packages that use it without the detector, too.
const Thin = 1
