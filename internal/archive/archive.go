// Package archive copies finished files to where they are kept: a folder, or a bucket of a store that speaks S3.
package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"btcpool/internal/config"
)

// Config says where. With neither Folder nor Endpoint, files are kept nowhere else.
type Config struct {
	Folder string `toml:"folder"`
	// Endpoint is the host:port of the S3 server, Bucket one of its buckets, which is there, and Prefix what keys begin with.
	Endpoint string `toml:"endpoint"`
	Bucket   string `toml:"bucket"`
	Prefix   string `toml:"prefix"`
	Region   string `toml:"region"`
	// Insecure is HTTP instead of HTTPS.
	Insecure bool `toml:"insecure"`
	// AccessKey and SecretKey are the server's; each may stand in a file.
	AccessKey     string `toml:"access_key" env:"ARCHIVE_ACCESS_KEY"`
	AccessKeyFile string `toml:"access_key_file"`
	SecretKey     string `toml:"secret_key" env:"ARCHIVE_SECRET_KEY"`
	SecretKeyFile string `toml:"secret_key_file"`
}

func (c Config) accessKey() config.Secret {
	return config.Secret{Key: "access_key", Value: c.AccessKey, File: c.AccessKeyFile}
}

func (c Config) secretKey() config.Secret {
	return config.Secret{Key: "secret_key", Value: c.SecretKey, File: c.SecretKeyFile}
}

// Validate reports all faults.
func (c Config) Validate() error {
	var faults config.Faults
	faults.Add(c.accessKey().Validate())
	faults.Add(c.secretKey().Validate())
	switch {
	case c.Folder != "" && c.Endpoint != "":
		faults.Addf("folder, endpoint: only one of them may be set")
	case c.Endpoint != "" && c.Bucket == "":
		faults.Addf("bucket: must be set, because of endpoint")
	case c.Endpoint != "" && (c.accessKey().IsZero() || c.secretKey().IsZero()):
		faults.Addf("access_key, secret_key: must be set, because of endpoint")
	}
	return faults.Err()
}

// ErrDiffers says that what was read back is not what was written.
var ErrDiffers = errors.New("copy in the archive differs")

// Store keeps files by key, a path with slashes.
type Store interface {
	// Put has the file at path kept under a key, and reads it back. It does nothing when that is so already.
	Put(ctx context.Context, key, path string) error
}

// New returns where c says, nil if nowhere.
func New(c Config) (Store, error) {
	switch {
	case c.Folder != "":
		return folder{c.Folder}, nil
	case c.Endpoint != "":
		return newBucket(c)
	}
	return nil, nil
}

// sum returns the SHA-256 of all that r has.
func sum(ctx context.Context, r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, &untilDone{ctx, r})
	return hex.EncodeToString(h.Sum(nil)), err
}

func fileSum(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return sum(ctx, f)
}

func compare(key, want, got string) error {
	if got != want {
		return fmt.Errorf("%w: %s has SHA-256 %s, not %s", ErrDiffers, key, got, want)
	}
	return nil
}

// untilDone reads until ctx ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}
