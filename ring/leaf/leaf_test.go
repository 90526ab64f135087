package leaf

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// The values are what the shell command of PROTOCOL.md section 7 prints.
func TestOf(t *testing.T) {
	for _, tt := range []struct {
		size int64
		want string
	}{
		{0, "leaves-sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{1, "leaves-sha256:1406e05881e299367766d313e26c05564ec91bf721d31726bd6e46e60689539a"},
		{Size, "leaves-sha256:c7e946d101855255d919ef0c70718633adf77d3dfb3adeeecf5d0cb4e951be58"},
		{3*Size + 5, "leaves-sha256:50e6e0327163f78261b2f8f98c9b4c135525360ebf32c89d7189f0eec07e4c1e"},
	} {
		got, err := Of(t.Context(), bytes.NewReader(make([]byte, tt.size)), tt.size)
		if err != nil || got.String() != tt.want {
			t.Errorf("%d zeros: %s, %v, want %s", tt.size, got, err, tt.want)
		}
	}
}

func TestOfOrder(t *testing.T) {
	content := make([]byte, 5*Size+77)
	rand.NewChaCha8([32]byte{1}).Read(content)
	root := sha256.New()
	for rest := content; len(rest) > 0; rest = rest[min(Size, len(rest)):] {
		sum := sha256.Sum256(rest[:min(Size, len(rest))])
		root.Write(sum[:])
	}
	got, err := Of(t.Context(), bytes.NewReader(content), int64(len(content)))
	if want := Digest(root.Sum(nil)); err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

func TestOfFails(t *testing.T) {
	if _, err := Of(t.Context(), bytes.NewReader(make([]byte, Size+1)), Size+2); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file that is too short: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Of(ctx, zeros{}, math.MaxInt64); !errors.Is(err, context.Canceled) {
		t.Errorf("a sparse file that has more leaves than memory has bytes: %v", err)
	}
	if _, err := Of(ctx, bytes.NewReader(make([]byte, Size)), Size); !errors.Is(err, context.Canceled) {
		t.Errorf("an end that was asked for: %v", err)
	}
}

// zeros is a file of zeros without an end.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// Beyond one run of leaves the sums stay in their order.
func TestOfRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes 4 GiB")
	}
	const size = run + 2*Size + 1
	leaf, last, root := sha256.Sum256(make([]byte, Size)), sha256.Sum256([]byte{0}), sha256.New()
	for range run/Size + 2 {
		root.Write(leaf[:])
	}
	root.Write(last[:])
	if got, err := Of(t.Context(), zeros{}, size); err != nil || got != Digest(root.Sum(nil)) {
		t.Errorf("%s, %v", got, err)
	}
}

func TestIn(t *testing.T) {
	for _, tt := range []struct {
		d    v1.Descriptor
		want bool
	}{
		{v1.Descriptor{MediaType: MediaType, Size: 1}, true},
		{v1.Descriptor{MediaType: MediaType, Size: -1}, false},
		{v1.Descriptor{MediaType: MediaType, Size: 1, Digest: Digest(make([]byte, 32))}, false},
		{v1.Descriptor{MediaType: "application/octet-stream", Size: 1}, false},
	} {
		if got := In(tt.d); got != tt.want {
			t.Errorf("%+v: %v", tt.d, got)
		}
	}
}
