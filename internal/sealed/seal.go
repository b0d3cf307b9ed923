package sealed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"btcpool/internal/durable"
	"btcpool/internal/sharefile"
)

// ErrFewer says that a day's file has less than the sealed day, and is not what came after that one's.
var ErrFewer = errors.New("share file has fewer records than the sealed day")

// workDir is the folder in that of the days where a day is sealed. One process at a time does that.
const workDir = "sealing"

// Seal makes the sealed file of a day, beside the day's own, in place of the one that may be there. What came to the
// day's file since it was sealed is added, also when that file was removed in between. After a crash the sealed file is
// what it was or what it shall be.
func Seal(ctx context.Context, dir, chain string, day sharefile.Day) (*Footer, error) {
	return sealWithin(ctx, dir, chain, day, inMemory)
}

func sealWithin(ctx context.Context, dir, chain string, day sharefile.Day, memory limits) (_ *Footer, err error) {
	work := filepath.Join(dir, workDir)
	lock, err := durable.Lock(work)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, clean(work), lock.Close()) }()
	if err := clean(work); err != nil {
		return nil, err
	}
	j := &job{
		path: sharefile.Path(dir, chain, day), sealed: Path(dir, chain, day), work: work,
		sorter: &sorter{dir: work, limits: memory}, codec: newCodec(), tally: newTally(),
		footer: Footer{Format: format, Chain: chain, Day: day},
	}
	if err := j.run(ctx); err != nil {
		return nil, err
	}
	return &j.footer, nil
}

// clean removes what sealing has left in its folder.
func clean(work string) error {
	entries, err := os.ReadDir(work)
	for _, e := range entries {
		if e.Name() != "lock" {
			err = errors.Join(err, os.Remove(filepath.Join(work, e.Name())))
		}
	}
	return err
}

// job is a day that is being sealed.
type job struct {
	path, sealed, work string
	sorter             *sorter
	codec              *codec
	tally              *tally
	footer             Footer
}

func (j *job) run(ctx context.Context) error {
	skip, had, err := j.takeSealed(ctx)
	if err != nil {
		return err
	}
	src, err := readSource(ctx, j.path, func(record []byte) error {
		if skip > 0 {
			skip--
			return nil
		}
		return j.take(record)
	})
	if err != nil {
		return err
	}
	if err := enough(j.tally.records, had); err != nil {
		return err
	}
	if j.tally.records == 0 {
		return fmt.Errorf("%w: it holds no share", ErrUnsound)
	}
	f := &j.footer
	f.Offsets = join(f.Offsets, src.offsets)
	if len(src.offsets) == 0 {
		f.Offsets = nil
	}
	f.Sources, f.Total = append(f.Sources, src.Source), j.tally.total()
	made, err := j.write(ctx)
	if err != nil {
		return err
	}
	if _, err := check(ctx, made); err != nil {
		return err
	}
	return errors.Join(os.Rename(made, j.sealed), durable.SyncDir(filepath.Dir(j.sealed)))
}

// takeSealed takes the rows that the sealed day has, unless the day's file has them all: then what is sealed may even be
// damaged. It returns how many records at the beginning of that file are among them, and how many there are. First it wants room.
func (j *job) takeSealed(ctx context.Context) (skip, had int64, err error) {
	r, err := Open(j.sealed)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, j.room(j.path)
	}
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	f := r.footer
	skip, adds, err := relate(j.path, f)
	if err != nil {
		return 0, 0, err
	}
	if !adds || skip == f.Records {
		return 0, f.Records, j.room(j.path)
	}
	if err := j.room(j.path, j.sealed); err != nil {
		return 0, 0, err
	}
	j.footer.Sources = slices.Clone(f.Sources)
	if skip > 0 {
		j.footer.Sources = j.footer.Sources[:len(f.Sources)-1]
	}
	j.footer.Offsets = f.Offsets
	for n := 0; ; n++ {
		if n%batchRows == 0 && ctx.Err() != nil {
			return 0, 0, ctx.Err()
		}
		record, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = j.take(record)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return skip, f.Records, nil
}

// room wants the disk to hold twice more the files of which records are taken, in runs and as the file made of them, and
// to have some to spare.
func (j *job) room(files ...string) error {
	need := j.sorter.spare
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		need += 2 * uint64(info.Size())
	}
	return durable.Writable(j.work, need)
}

func (j *job) take(record []byte) error {
	r, isShare := j.codec.row(record)
	if isShare {
		j.tally.add(record, &j.codec.share)
	} else {
		j.tally.add(record, nil)
	}
	return j.sorter.add(r)
}

// write makes a file of what was taken, which whoever reads the day's file may read, and has it on disk.
func (j *job) write(ctx context.Context) (path string, err error) {
	f, err := os.OpenFile(filepath.Join(j.work, filepath.Base(j.sealed)), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	source, err := os.Stat(j.path)
	if err != nil {
		return "", err
	}
	if err := f.Chmod(source.Mode().Perm()); err != nil {
		return "", err
	}
	text, err := j.footer.encode()
	if err != nil {
		return "", err
	}
	w := newWriter(f, pageBytes, j.sorter.group)
	w.SetKeyValueMetadata(footerKey, text)
	if err := j.sorter.merge(func(rows []row) error {
		_, err := w.Write(rows)
		return errors.Join(err, ctx.Err())
	}); err != nil {
		return "", err
	}
	return f.Name(), errors.Join(w.Close(), f.Sync())
}
