package push

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/raw/tree"
)

// Tree is a directory that is sent with all that is in it.
type Tree struct {
	Path string
	// Exclude has patterns of what is left out, as tree.Options says.
	Exclude []string
	// Special sends devices and named pipes, too.
	Special bool
	// Note is called with what the user should know though it is no error.
	Note func(note error)
	// Warn is called with what is probably a mistake.
	Warn func(warning error)
}

// Open walks the directory.
func (in Tree) Open(_ context.Context, _ *Push, m *meta.Transfer) (ring.Source, error) {
	s, err := tree.Open(in.Path, tree.Options{Exclude: in.Exclude, Special: in.Special, Skipped: func(path string) {
		in.Note(fmt.Errorf("%s is a socket, and is left out", path))
	}, Unfit: func(pattern string) {
		in.Warn(fmt.Errorf("nothing in %s fits %q, which was to be left out", in.Path, pattern))
	}})
	if err != nil {
		return nil, err
	}
	t := &treeSource{Source: s, in: in, mark: s.Mark()}
	s.Known(in.sent(t.mark))
	return t, nil
}

// treeSource is a directory as a source.
type treeSource struct {
	*tree.Source
	in   Tree
	mark digest.Digest
	read digest.Digest
}

// Sums is told the digest of what was read.
func (t *treeSource) Sums(read []digest.Digest) { t.read = read[0] }

// Unchanged keeps the digest for the next transfer of the same directory.
func (t *treeSource) Unchanged(ctx context.Context) error {
	if err := t.Source.Unchanged(ctx); err != nil {
		return err
	}
	if t.read != "" && t.read.Algorithm() == digest.Canonical {
		_ = t.in.keep(sentTree{t.mark, t.read})
	}
	return nil
}

// sha256 returns "": what sha256sum has of a stream that is stored nowhere is of no use.
func (t *treeSource) sha256(context.Context) digest.Digest { return "" }
