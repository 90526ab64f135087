package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/sif"
)

// acceptor is a node's answer to a request: what its policy permits becomes a Sink
// made of the cache, a target, or nothing; what it does not permit is refused with
// the rule. Nothing is written before.
type acceptor struct {
	policy *identity.Policy
	cache  *cache.Cache
	stdout io.Writer // nil: this node has none for a transfer
	log    *slog.Logger
}

func (a *acceptor) accept(ctx context.Context, r ring.Request) (ring.Sink, error) {
	m, err := decodeMeta(r.Meta)
	if err != nil {
		return nil, refusal(err)
	}
	sink, err := a.compose(m, r.Blobs)
	if err != nil {
		return nil, refusal(err)
	}
	// The ring logs a refusal, and how a transfer ends; what it writes to is known
	// here only.
	a.log.Info("accepted", "transfer", r.Transfer, "sender", printable(r.Sender), "kind", m.Kind,
		"reference", printable(m.Ref), "output", printable(m.Output), "discard", m.Discard)
	return sink, nil
}

func (a *acceptor) compose(m *meta, blobs []v1.Descriptor) (ring.Sink, error) {
	switch {
	case m.Discard:
		return raw.Discard{}, nil
	case m.Output == "-" && a.stdout == nil:
		return nil, hintf("run dolly-img receive on it", "standard output: this node is a daemon and has none for a transfer")
	case m.Output == "-":
		return raw.Stdout(a.stdout), nil
	case m.Output == "":
		return a.cache.Transfer(m.Ref, cache.TransferOptions{}), nil
	}
	target, err := a.target(m)
	if err != nil {
		return nil, err
	}
	if m.Kind == kindRaw {
		if _, err := target.Check(); err != nil {
			target.Close()
			return nil, err
		}
		a.journalPart(m.Output)
		return target, nil
	}
	a.journalPart(m.Output)
	p := &placing{
		Transfer: a.cache.Transfer(m.Ref, cache.TransferOptions{}),
		cache:    a.cache, target: target, meta: m, free: -1,
	}
	if err := p.begin(blobs); err != nil {
		target.Close()
		return nil, err
	}
	return p, nil
}

func (a *acceptor) target(m *meta) (*raw.Target, error) {
	dir, rel, overwrite, err := a.policy.Output(m.Output)
	if err != nil {
		return nil, err
	}
	owner, err := resolveOwner(m.Owner)
	if err != nil {
		return nil, err
	}
	return raw.NewTarget(raw.TargetOptions{
		Dir: dir, Name: rel, Overwrite: overwrite,
		Mode: fs.FileMode(m.Mode), Owner: owner, ModTime: m.Mtime, Mkdir: m.Mkdir, Shared: m.Shared,
	})
}

// placing is an image on its way to the cache, and from there to a file.
type placing struct {
	*cache.Transfer
	cache  *cache.Cache
	target *raw.Target
	meta   *meta
	of     v1.Descriptor // what the file is made of: a SIF, or the manifest of an image
	pack   *archive      // of an image; nil: the file is the blob
	size   int64         // of the file
	mark   digest.Digest // what the record of the file in place has: all that its bytes depend on
	free   int64         // bytes free where the file goes; -1 unknown, or not yet asked for
	cloned bool          // the target has to be published
}

// String names both places, for the audit line.
func (p *placing) String() string { return p.meta.Output + " and " + p.Transfer.String() }

// begin finds what the file is made of, and whether the file can be made.
func (p *placing) begin(blobs []v1.Descriptor) (err error) {
	what := "SIF"
	for _, d := range blobs {
		switch {
		case d.Size < 0:
			return errors.New("output " + p.meta.Output + ": a blob of the image has no size")
		case p.meta.Format == formatArchive && cache.IsManifest(d.MediaType):
			p.of = d // the last one is the root
		case p.meta.Format == "" && d.MediaType == sif.LayerMediaType && p.of.Digest == "":
			p.of, p.size = d, d.Size
		}
	}
	if p.meta.Format == formatArchive {
		what = "manifest"
		if p.pack, err = newArchive(p.meta.Ref, blobs, p.of); err != nil {
			return err
		}
		p.size = p.pack.size()
	}
	p.mark = p.of.Digest
	if p.pack != nil {
		p.mark = digest.FromString(p.of.Digest.String() + " " + p.meta.Ref)
	}
	if p.of.Digest == "" {
		return errors.New("output " + p.meta.Output + ": no " + what + " in the image to make it of")
	}
	if !p.placed() {
		p.free, err = p.target.Check()
	}
	return err
}

// placed says whether the file already is what this transfer would make it.
func (p *placing) placed() bool {
	info, err := os.Lstat(p.meta.Output)
	if err != nil || !p.cache.Placed(p.meta.Output, p.mark) {
		return false
	}
	mode := fs.FileMode(p.meta.Mode)
	if mode == 0 {
		mode = 0o644
	}
	owner, err := resolveOwner(p.meta.Owner)
	st := info.Sys().(*syscall.Stat_t)
	return err == nil && info.Mode().Perm() == mode &&
		(owner == nil || (owner.UID < 0 || uint32(owner.UID) == st.Uid) && (owner.GID < 0 || uint32(owner.GID) == st.Gid))
}

// Offer is the cache's, with room for the file beside it.
func (p *placing) Offer(ctx context.Context, blobs []v1.Descriptor) (held []int64, free int64, err error) {
	held, free, err = p.Transfer.Offer(ctx, blobs)
	if err != nil || p.placed() {
		return held, free, err
	}
	need := p.size
	if p.free >= 0 && p.free < need {
		return nil, 0, fmt.Errorf("output %s: %s free, %s needed: %w", p.meta.Output, bytesText(p.free), bytesText(need), syscall.ENOSPC)
	}
	if free >= 0 && sameFileSystem(p.cache.Dir(), filepath.Dir(p.meta.Output)) {
		free = max(0, free-need) // a reflink may need less, which nobody knows before
	}
	return held, free, nil
}

// sameFileSystem is about what exists of both paths.
func sameFileSystem(a, b string) bool {
	x, okX := device(a)
	y, okY := device(b)
	return okX && okY && x == y
}

func device(path string) (uint64, bool) {
	for {
		info, err := os.Stat(path)
		if err == nil {
			return info.Sys().(*syscall.Stat_t).Dev, true
		}
		if !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			return 0, false
		}
		path = filepath.Dir(path)
	}
}

// Prepare makes the durable temporary of the file, unless the file is there.
func (p *placing) Prepare(ctx context.Context, blobs []v1.Descriptor) (inPlace bool, err error) {
	inPlace, err = p.Transfer.Prepare(ctx, blobs)
	if err != nil || p.placed() {
		return inPlace, err
	}
	if p.pack != nil {
		err = p.packInto(ctx)
	} else {
		err = p.clone(ctx)
	}
	p.cloned = err == nil
	return false, err
}

func (p *placing) clone(ctx context.Context) error {
	path, err := p.cache.BlobPath(p.of.Digest)
	if err != nil {
		return err
	}
	blob, err := os.Open(path)
	if err != nil {
		return err
	}
	defer blob.Close()
	return p.target.Clone(ctx, blob, p.size)
}

// packInto writes the archive from the blobs of the cache, which are known to be right.
func (p *placing) packInto(ctx context.Context) error {
	w, err := p.target.Begin(ctx, v1.Descriptor{Size: p.size}, 0)
	if err != nil {
		return err
	}
	err = p.pack.write(w, func(d v1.Descriptor) (io.ReadCloser, error) { return p.Transfer.Open(ctx, d, 0) })
	if err != nil {
		return errors.Join(err, w.Abort(0))
	}
	return w.Commit(ctx, v1.Descriptor{Size: p.size})
}

// Publish switches the file, then the reference. The record that the file is in
// place spares the next transfer a copy and is worth no failure.
func (p *placing) Publish(ctx context.Context) error {
	if p.cloned {
		if err := p.target.Publish(ctx); err != nil {
			return err
		}
		_ = p.cache.RecordPlaced(p.meta.Output, p.mark)
	}
	return p.Transfer.Publish(ctx)
}

// Close ends both.
func (p *placing) Close() error { return errors.Join(p.target.Close(), p.Transfer.Close()) }

// refusal is err as the sender reads it: with what to do on the node, and where it is
// a matter of waiting as the ring's ErrBusy.
func refusal(err error) error {
	text := err.Error()
	if hint := hintOf(err); hint != "" {
		text += " (" + hint + ")"
	}
	if errors.Is(err, raw.ErrBusy) {
		return fmt.Errorf("%s: %w", text, ring.ErrBusy)
	}
	return errors.New(text)
}

var (
	_ ring.Opener   = (*placing)(nil)
	_ ring.Preparer = (*placing)(nil)
	_ io.Closer     = (*placing)(nil)
)
