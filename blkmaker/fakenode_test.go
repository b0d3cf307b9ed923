package blkmaker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// fakeNode accepts every block and knows one.
type fakeNode struct {
	*httptest.Server
	submitted atomic.Int32
	knows     atomic.Pointer[string]
}

func newFakeNode(t *testing.T) *fakeNode {
	n := new(fakeNode)
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct {
			Method string
			Params []any
		}
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		result, fault := "null", "null"
		switch call.Method {
		case "getblockchaininfo":
			result = `{"chain":"regtest","blocks":1,"bestblockhash":"00"}`
		case "submitblock":
			n.submitted.Add(1)
		case "getblockheader":
			if hash := n.knows.Load(); hash != nil && *hash == call.Params[0] {
				result = `{"height":1,"confirmations":1}`
			} else {
				fault = `{"code":-5,"message":"Block not found"}`
			}
		}
		fmt.Fprintf(w, `{"result":%s,"error":%s,"id":"1"}`, result, fault)
	}))
	t.Cleanup(n.Close)
	return n
}
