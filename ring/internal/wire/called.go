package wire

import (
	"fmt"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxCalled bounds a name in bytes.
const maxCalled = 100

// Called returns what people call blob b: the title that its source gave it, as the name of a file has it, and else its number.
// It may be of a peer, and is safe to print.
func Called(blobs []v1.Descriptor, b int) string {
	if b >= 0 && b < len(blobs) {
		if title := blobs[b].Annotations[v1.AnnotationTitle]; title != "" {
			return Printable(title[:min(len(title), maxCalled)])
		}
	}
	return fmt.Sprintf("blob %d", b)
}
