// Package bitcoin holds what a pool must know of Bitcoin: networks and their addresses, difficulty and targets, work,
// merkle branches and the coinbase. It has no state, does no input or output and is safe for concurrent use.
//
// Hashes are in internal order (chainhash.Hash) unless a name says otherwise; amounts are satoshi.
package bitcoin
