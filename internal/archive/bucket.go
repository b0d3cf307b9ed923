package archive

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// bucket is one of a server that speaks S3. The client tries again by itself what a server refuses for now.
type bucket struct {
	client *minio.Client
	name   string
	prefix string
	// sums has the SHA-256 of the objects that were read back. What an object's metadata says is what was sent, which need
	// not be what the server kept.
	sums map[string]string
}

func newBucket(c Config) (*bucket, error) {
	access, err := c.accessKey().Read()
	if err != nil {
		return nil, err
	}
	secret, err := c.secretKey().Read()
	if err != nil {
		return nil, err
	}
	client, err := minio.New(c.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(access, secret, ""), Secure: !c.Insecure, Region: c.Region,
	})
	if err != nil {
		return nil, fmt.Errorf("endpoint = %q: %w", c.Endpoint, err)
	}
	return &bucket{client, c.Bucket, c.Prefix, make(map[string]string)}, nil
}

// sumKey is the name of the metadata that has an object's SHA-256.
const sumKey = "Sha256"

func (b *bucket) Put(ctx context.Context, key, file string) error {
	want, err := fileSum(ctx, file)
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	key = path.Join(b.prefix, key)
	is, err := b.client.StatObject(ctx, b.name, key, minio.StatObjectOptions{})
	switch {
	case err == nil && is.Size == info.Size() && is.UserMetadata[sumKey] == want:
		if b.sums[key] == want {
			return nil
		}
		if err := b.readBack(ctx, key, want); !errors.Is(err, ErrDiffers) {
			return err
		}
	case err != nil && minio.ToErrorResponse(err).StatusCode != http.StatusNotFound:
		return err
	}
	if _, err := b.client.FPutObject(ctx, b.name, key, file, minio.PutObjectOptions{
		ContentType: "application/vnd.apache.parquet", UserMetadata: map[string]string{sumKey: want},
	}); err != nil {
		return err
	}
	return b.readBack(ctx, key, want)
}

// readBack wants an object to be what it shall be. One that is not stays: the server may have shown a former one, which is
// good.
func (b *bucket) readBack(ctx context.Context, key, want string) error {
	delete(b.sums, key)
	object, err := b.client.GetObject(ctx, b.name, key, minio.GetObjectOptions{})
	if err != nil {
		return err
	}
	got, err := sum(ctx, object)
	if err = errors.Join(err, object.Close()); err != nil {
		return err
	}
	b.sums[key] = got
	return compare(key, want, got)
}
