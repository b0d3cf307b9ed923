package statshttpd

import (
	"bytes"
	"compress/gzip"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/andybalholm/brotli"
)

// coding is a way to compress an answer, as HTTP calls it; the empty one is none.
type coding string

const (
	packFrom = 1400 // bytes: what is smaller is one packet anyway

	asIs     coding = ""
	brotlied coding = "br"
	gzipped  coding = "gzip"
)

// codingFor is the one that a header Accept-Encoding likes best: of equal ones brotli before gzip, and none at all only
// where that is liked better.
func codingFor(header string) coding {
	quality := map[string]float64{}
	for item := range strings.SplitSeq(header, ",") {
		name, parameters, given := strings.Cut(item, ";")
		q := 1.0
		if given {
			text, ok := strings.CutPrefix(strings.ToLower(strings.ReplaceAll(parameters, " ", "")), "q=")
			n, err := strconv.ParseFloat(text, 64)
			if q = n; !ok || err != nil || !(n >= 0 && n <= 1) {
				q = 0
			}
		}
		quality[strings.ToLower(strings.TrimSpace(name))] = q
	}
	best, most := asIs, quality["identity"]
	for _, c := range []coding{brotlied, gzipped} {
		q, named := quality[string(c)]
		if !named {
			q = quality["*"]
		}
		if q > 0 && (q > most || best == asIs && q == most) {
			best, most = c, q
		}
	}
	return best
}

// packer compresses what it is given into a buffer.
type packer interface {
	io.WriteCloser
	Reset(w io.Writer)
}

// packers have those that are quick: an answer of the API is sent once, and brotli's quickest is smaller than gzip's and
// takes no longer.
var packers = map[coding]*sync.Pool{
	brotlied: {New: func() any { return brotli.NewWriterLevel(nil, 1) }},
	gzipped:  {New: func() any { return newGzip(gzip.BestSpeed) }},
}

func newGzip(level int) *gzip.Writer {
	w, _ := gzip.NewWriterLevel(nil, level) // the level is valid
	return w
}

func pack(with packer, body []byte) []byte {
	var packed bytes.Buffer
	with.Reset(&packed)
	_, _ = with.Write(body) // memory never fails
	_ = with.Close()
	return packed.Bytes()
}

// packQuickly compresses an answer.
func packQuickly(c coding, body []byte) []byte {
	with := packers[c].Get().(packer)
	defer packers[c].Put(with)
	return pack(with, body)
}

// filePack is a file as it is sent in a coding.
type filePack struct {
	tag string // of the file
	coding
}

// filePacks keeps files compressed well, which takes long: they are asked for again and again. It is safe for concurrent use.
type filePacks struct {
	mu   sync.Mutex
	kept map[filePack][]byte
}

const mostFilePacks = 64 // with web_dir files may change

func (f *filePacks) pack(tag string, c coding, body []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := filePack{tag, c}
	if packed, ok := f.kept[key]; ok {
		return packed
	}
	if f.kept == nil || len(f.kept) >= mostFilePacks {
		f.kept = make(map[filePack][]byte)
	}
	var with packer = newGzip(gzip.BestCompression)
	if c == brotlied {
		with = brotli.NewWriterLevel(nil, 9)
	}
	f.kept[key] = pack(with, body)
	return f.kept[key]
}
