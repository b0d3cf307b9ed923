package gbtmaker

import (
	"context"
	"sync"

	"btcpool/internal/job"
)

// answer is a node's to getblocktemplate.
type answer struct {
	text []byte
	name func() string // of text, as job.RawGBT has it: it takes milliseconds, which a caller that needs it waits for
}

// answerOf has a text named.
func answerOf(text []byte) answer {
	naming := job.NewNaming()
	defer naming.End()
	naming.Arrived(text)
	return answer{text, sync.OnceValue(naming.Name)}
}

// blockTemplate asks n for a template now. It is named while it arrives.
func (n *node) blockTemplate(ctx context.Context) (answer, error) {
	naming := job.NewNaming()
	defer naming.End()
	text, err := n.client.BlockTemplate(ctx, "", naming.Arrived)
	return answer{text, sync.OnceValue(naming.Name)}, err
}
