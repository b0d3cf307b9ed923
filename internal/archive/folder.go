package archive

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"btcpool/internal/durable"
)

type folder struct{ dir string }

func (f folder) Put(ctx context.Context, key, path string) error {
	want, err := fileSum(ctx, path)
	if err != nil {
		return err
	}
	target := filepath.Join(f.dir, filepath.FromSlash(key))
	switch got, err := fileSum(ctx, target); {
	case err == nil && got == want:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	part := target + ".part"
	if err := copyFile(ctx, part, path); err != nil {
		return err
	}
	got, err := fileSum(ctx, part)
	if err == nil {
		err = compare(key, want, got)
	}
	if err != nil {
		return err
	}
	return errors.Join(os.Rename(part, target), durable.SyncDir(filepath.Dir(target)))
}

func copyFile(ctx context.Context, target, path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, &untilDone{ctx, in}); err != nil {
		return err
	}
	return out.Sync()
}
