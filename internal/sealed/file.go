package sealed

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/parquet-go/parquet-go"
)

// Sizes of what is written, in rows and bytes. A reader of a file keeps a page of each column in memory, and the
// dictionaries of a row group.
const (
	groupRows = 1 << 20
	pageBytes = 256 << 10
	runPage   = 16 << 10 // many runs are read at the same time
)

func newWriter(w io.Writer, page, group int) *parquet.GenericWriter[row] {
	return parquet.NewGenericWriter[row](w,
		parquet.MaxRowsPerRowGroup(int64(group)),
		parquet.PageBufferSize(page),
		parquet.CreatedBy("btcpool", "1", ""),
		parquet.SkipPageBounds("record"),
		parquet.SortingWriterConfig(parquet.SortingColumns(parquet.Ascending("user_id"), parquet.Ascending("worker_id"))),
	)
}

// file is a file of rows that is read from its beginning to its end.
type file struct {
	file    *os.File
	parquet *parquet.File
	groups  []parquet.RowGroup // that are not read yet
	columns *columns           // of the one being read; nil: none
}

// openFile opens a file of rows.
func openFile(path string) (_ *file, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	in := &file{file: f}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	defer in.guard(&err)
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	in.parquet, err = parquet.OpenFile(f, info.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, in.corrupt(err)
	}
	if want := parquet.SchemaOf(row{}); !parquet.EqualNodes(want, in.parquet.Schema()) {
		return nil, in.corrupt(errors.New("other columns than a sealed day has"))
	}
	if err := in.checkChunks(info.Size()); err != nil {
		return nil, in.corrupt(err)
	}
	in.groups = in.parquet.RowGroups()
	return in, nil
}

// checkChunks wants each column to be compressed as we do it, and not to be larger than the file: with another codec its
// bytes may ask for any amount of memory.
func (f *file) checkChunks(size int64) error {
	schema := parquet.SchemaOf(row{})
	paths := schema.Columns()
	for _, group := range f.parquet.Metadata().RowGroups {
		for i, chunk := range group.Columns {
			leaf, ok := schema.Lookup(paths[i]...)
			if !ok {
				return errors.New("other columns than a sealed day has")
			}
			is := &chunk.MetaData
			if want := leaf.Node.Compression().CompressionCodec(); is.Codec != want {
				return fmt.Errorf("column %s is compressed by %s, not %s", paths[i], is.Codec, want)
			}
			if is.TotalCompressedSize < 0 || is.TotalCompressedSize > size {
				return fmt.Errorf("column %s has %d bytes, the file %d", paths[i], is.TotalCompressedSize, size)
			}
		}
	}
	return nil
}

func (f *file) close() error {
	var err error
	if f.columns != nil {
		err = f.columns.close()
	}
	return errors.Join(err, f.file.Close())
}

func (f *file) corrupt(err error) error {
	return fmt.Errorf("%w: %s: %w", ErrCorrupt, f.file.Name(), err)
}

// guard makes an error of what the library panics with when a file is not as it says.
func (f *file) guard(err *error) {
	if fault := recover(); fault != nil {
		*err = f.corrupt(fmt.Errorf("%v", fault))
	}
}

// read fills rows with what comes next, or returns io.EOF.
func (f *file) read(rows []row) (n int, err error) {
	defer f.guard(&err)
	for {
		if f.columns == nil {
			if len(f.groups) == 0 {
				return 0, io.EOF
			}
			f.columns = openColumns(f.groups[0])
			f.groups = f.groups[1:]
		}
		n, err := f.columns.read(rows)
		switch {
		case errors.Is(err, io.EOF):
			if err := f.columns.close(); err != nil {
				return 0, err
			}
			f.columns = nil
		case err != nil:
			return 0, f.corrupt(err)
		default:
			return n, nil
		}
	}
}
