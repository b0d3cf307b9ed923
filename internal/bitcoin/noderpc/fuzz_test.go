package noderpc

import (
	"encoding/json"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/rs/zerolog"
)

// FuzzAnswer: what passes for an answer is JSON, has a result and no error.
func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(`{"result":null,"error":null,"id":"1"}`))
	f.Add(500, []byte(`{"result":null,"error":{"code":-28,"message":"Loading block index…"},"id":"1"}`))
	f.Add(200, []byte(`{"jsonrpc":"1.0","result":"rejected: already have block","error":null,"id":"1"}`))
	f.Add(401, []byte(`401 Unauthorized.`))
	f.Add(200, []byte(``))
	c := new(Client)
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if c.check(status, body) != nil {
			return
		}
		var answer map[string]json.RawMessage
		if err := json.Unmarshal(body, &answer); err != nil || answer["result"] == nil {
			t.Errorf("HTTP %d %q passes: %v", status, body, err)
		}
	})
}

// FuzzReceive: a message is an error or a block, and the sequence follows.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("hashblock"), make([]byte, 32), []byte{1, 0, 0, 0}, uint32(0), true)
	f.Add([]byte("hashblock"), make([]byte, 32), []byte{0, 0, 0, 0}, uint32(7), false)
	f.Add([]byte("hashtx"), make([]byte, 32), []byte{}, uint32(0), false)
	f.Fuzz(func(t *testing.T, topic, hash, seq []byte, next uint32, first bool) {
		blocks := 0
		s := &subscriber{
			Subscription: Subscription{Log: zerolog.Nop(), OnBlock: func(chainhash.Hash) { blocks++ }},
			next:         next,
		}
		err := s.receive([][]byte{topic, hash, seq}, first)
		if (err == nil) != (blocks == 1) || (err == nil) != s.started {
			t.Errorf("error %v, %d blocks, started %v", err, blocks, s.started)
		}
	})
}
