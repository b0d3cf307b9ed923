package miner_test

import (
	"crypto/sha256"
	"testing"

	"btcpool/internal/bitcoin"
	"btcpool/internal/miner"
)

// BenchmarkScan is the mining loop with a target that no hash meets.
func BenchmarkScan(b *testing.B) {
	scan := miner.Scanner(new([80]byte))
	target := new(bitcoin.Target)
	const batch = 4096
	b.ReportAllocs()
	for b.Loop() {
		if _, _, found := scan(0, batch, target); found {
			b.Fatal("found a hash of zero")
		}
	}
	b.ReportMetric(float64(b.N)*batch/b.Elapsed().Seconds()/1e6, "MH/s")
}

// BenchmarkCompressions is the limit: two compressions a hash and nothing else.
func BenchmarkCompressions(b *testing.B) {
	const batch = 512
	digest := sha256.New()
	blocks := make([]byte, 2*batch*sha256.BlockSize)
	b.ReportAllocs()
	for b.Loop() {
		digest.Write(blocks)
	}
	b.ReportMetric(float64(b.N)*batch/b.Elapsed().Seconds()/1e6, "MH/s")
}

// BenchmarkSum256 is what the midstate and the ready-made padding save.
func BenchmarkSum256(b *testing.B) {
	var header [80]byte
	b.ReportAllocs()
	for b.Loop() {
		header[76]++
		sum := sha256.Sum256(header[:])
		sum = sha256.Sum256(sum[:])
		header[75] = sum[0]
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "MH/s")
}
