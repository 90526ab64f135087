package wire

import (
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestCalled(t *testing.T) {
	titled := func(s string) v1.Descriptor {
		return v1.Descriptor{Annotations: map[string]string{v1.AnnotationTitle: s}}
	}
	blobs := []v1.Descriptor{titled("disk.img"), {}, titled("a\x1b[2J\nb"), titled(strings.Repeat("é", 99))}
	for b, want := range map[int]string{-1: "blob -1", 0: "disk.img", 1: "blob 1", 2: `a\x1b[2J\nb`, 4: "blob 4"} {
		if got := Called(blobs, b); got != want {
			t.Errorf("%d: %q, want %q", b, got, want)
		}
	}
	if got := Called(blobs, 3); len(got) > 110 {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}
