package warmer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Bounds of a lookup.
const (
	tagsAtOnce = 4    // tags of one entry that a registry is asked for beside each other
	mostTags   = 1000 // that match one entry
)

// Lookup asks what an entry of the list stands for. Names and digests are those that a push of the same image would give to the caches, as it opens
// the image in the same way.
//
// A registry is asked for the digest of a tag (HEAD), and where the digest is known for nothing else. Otherwise the image is opened by this digest
// for each platform, so that all platforms are of one moment, and what comes is compared with what was said. Each request is made once. Where
// a registry answers 429, the error has a method RetryAfter.
//
// An image in a file is read when the file has changed, and not again in later rounds.
func (e *Effects) Lookup(ctx context.Context, l *warm.Lookup) ([]warm.Tag, error) {
	tags, err := e.lookup(ctx, l)
	if file := l.Image.AuthFile; file != "" {
		if f := (*failure)(nil); errors.As(err, &f) {
			f.text = strings.ReplaceAll(f.text, file, "the authfile")
		}
		for i := range tags {
			tags[i].Why = strings.ReplaceAll(tags[i].Why, file, "the authfile")
		}
	}
	return tags, err
}

func (e *Effects) lookup(ctx context.Context, l *warm.Lookup) ([]warm.Tag, error) {
	if l.Image.Name != "" {
		full, err := oci.FullName(l.Image.Name) // as a push completes the name that it is given
		if err != nil {
			return nil, told(fmt.Errorf("name %s: %w", l.Image.Name, err))
		}
		named := *l
		named.Image.Name, l = full, &named
	}
	switch {
	case !image.OfRegistry(l.Image.Ref):
		tag, err := e.files.lookup(ctx, l, open)
		if err != nil {
			return nil, told(err)
		}
		return []warm.Tag{tag}, nil
	case l.Image.Tags != "":
		return lookupTags(ctx, l)
	}
	tag, err := lookupTag(ctx, l, l.Image.Ref)
	if err != nil {
		return nil, told(err)
	}
	return []warm.Tag{tag}, nil
}

// lookupTags looks up all tags that match. What is wrong with one of them does not concern the others.
func lookupTags(ctx context.Context, l *warm.Lookup) ([]warm.Tag, error) {
	var matching []string
	err := oci.Impatient(ctx, func(ctx context.Context) error {
		_, all, err := oci.Tags(ctx, l.Image.Ref, oci.RegistryOptions{AuthFile: l.Image.AuthFile})
		matching = slices.DeleteFunc(all, func(tag string) bool { return !l.Image.Matches(tag) })
		return err
	})
	if err != nil {
		return nil, told(err)
	}
	if len(matching) > mostTags {
		return nil, fmt.Errorf("%d tags match, at most %d: make the pattern narrower", len(matching), mostTags)
	}
	slices.Sort(matching)
	matching = slices.Compact(matching)
	tags := make([]warm.Tag, len(matching))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(tagsAtOnce)
	for i, tag := range matching {
		group.Go(func() (err error) {
			ref := l.Image.Ref + ":" + tag
			if tags[i], err = lookupTag(ctx, l, ref); err == nil {
				return nil
			}
			if ctx.Err() != nil || ofRegistry(err) {
				return told(err)
			}
			tags[i] = warm.Tag{Ref: ref, Why: told(err).Error()}
			return nil
		})
	}
	return tags, group.Wait()
}

// lookupTag looks up one image of a registry.
func lookupTag(ctx context.Context, l *warm.Lookup, ref string) (tag warm.Tag, err error) {
	err = oci.Impatient(ctx, func(ctx context.Context) error {
		tag, err = lookupRef(ctx, l, ref)
		return err
	})
	return tag, err
}

func lookupRef(ctx context.Context, l *warm.Lookup, ref string) (warm.Tag, error) {
	tag, name := warm.Tag{Ref: ref}, l.Image.Name
	if _, d, ok := strings.Cut(ref, "@"); ok {
		parsed, err := digest.Parse(d)
		if err != nil {
			return tag, fmt.Errorf("%q is no digest: %w", d, err)
		}
		tag.List = parsed
	} else {
		full, d, err := oci.Head(ctx, ref, oci.RegistryOptions{AuthFile: l.Image.AuthFile})
		if err != nil {
			return tag, err
		}
		tag.List = d
		if name == "" {
			name = full
		}
		transport, _ := oci.Split(ref)
		ref = transport + "://" + full + "@" + d.String()
	}
	if l.Known[tag.Ref] == tag.List {
		return tag, nil
	}
	var err error
	tag.Variants, err = variants(ctx, l, ref, name, open)
	return tag, err
}

// opener finds out what the image IMAGE is for one platform, under a name or, where that is "", under its own.
type opener func(ctx context.Context, img, name, platform, authFile string) (warm.Found, error)

// variants opens an image for each platform that there is.
func variants(ctx context.Context, l *warm.Lookup, img, name string, open opener) (list []warm.Found, err error) {
	for _, platform := range l.Platforms {
		f, err := open(ctx, img, name, platform, l.Image.AuthFile)
		switch kind, _ := errkind.Of(err); {
		case kind == "platform-none" || kind == "platform-other":
			continue
		case err != nil:
			return nil, err
		}
		f.Platform = platform
		list = append(list, f)
	}
	return list, nil
}

// open is the opener that opens an image as a push does, and keeps nothing of it.
func open(ctx context.Context, img, name, platform, authFile string) (warm.Found, error) {
	var m meta.Transfer
	source, err := image.Open(ctx, img, image.Options{NoCache: true,
		OCI: oci.Options{Platform: platform, Name: name, Registry: oci.RegistryOptions{AuthFile: authFile}}}, &m)
	if err != nil {
		return warm.Found{}, err
	}
	if c, ok := source.(io.Closer); ok {
		defer c.Close()
	}
	blobs, err := source.Blobs(ctx)
	if err != nil {
		return warm.Found{}, err
	}
	f := warm.Found{Name: m.Ref}
	for _, b := range blobs {
		f.Digest = b.Digest // The last one is that of the image.
		f.Bytes += b.Size
	}
	if f.Digest == "" {
		return f, errors.New("has no blobs")
	}
	return f, nil
}

// errChanged is the error of a file that somebody writes to.
var errChanged = errors.New("changed while it was being read")

// files remembers what images in files were found to be, so that a file is not read again in each round. A zero one is ready for use.
type files struct {
	now  func() time.Time // nil is time.Now
	mu   sync.Mutex
	last map[string]lookedUp // by the Ref of the entry
}

// lookedUp is what an entry was found to be for some platforms, and the state of the file then.
type lookedUp struct {
	name      string
	platforms []string
	state     fileState
	tag       warm.Tag
}

func (f *files) lookup(ctx context.Context, l *warm.Lookup, open opener) (warm.Tag, error) {
	ref := l.Image.Ref
	before, err := stateOf(ref)
	if err != nil {
		return warm.Tag{}, err
	}
	f.mu.Lock()
	was, known := f.last[ref]
	f.mu.Unlock()
	if known && was.state == before && was.name == l.Image.Name && slices.Equal(was.platforms, l.Platforms) {
		return was.tag, nil
	}
	tag := warm.Tag{Ref: ref}
	now := time.Now
	if f.now != nil {
		now = f.now
	}
	settled := before.settled(now())
	if tag.Variants, err = variants(ctx, l, ref, l.Image.Name, open); err != nil {
		return tag, err
	}
	after, err := stateOf(ref)
	if err == nil && after != before {
		err = errChanged
	}
	if err != nil {
		return tag, err
	}
	var all strings.Builder
	for _, v := range tag.Variants {
		fmt.Fprintln(&all, v.Digest)
	}
	tag.List = digest.FromString(all.String())
	if settled {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.last == nil {
			f.last = map[string]lookedUp{}
		}
		f.last[ref] = lookedUp{l.Image.Name, slices.Clone(l.Platforms), before, tag}
	}
	return tag, nil
}
