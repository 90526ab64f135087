package raw

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// An update compares the file that it will replace where it is. If nothing differs, the file stays, and nothing is written. Else
// the part becomes a copy of the file, of which the blob brings what differs, and the file itself stays as it is until Publish.
//
// A transfer that was broken off may have left the front of a part. It takes the place of the front of the file.
//
// Others may write to the file meanwhile. It stays, or its sums of the comparison are believed of a copy that shares its blocks, only
// if its times are what they were before the first byte was read. What is copied otherwise is hashed again.

// update is one of a Target. Its methods that others call do nothing for nil.
type update struct {
	old  *existing // the file
	had  int64     // leading bytes that the part has already, in whole leaves or all of the blob's
	size int64     // leading bytes that are compared
	// holes says that the file has holes that need not be read.
	holes bool

	begun  bool    // the part is a copy, or becomes one
	copies *copier // nil: the part shares the blocks of the file
	right  int64   // so many of had are right
	sure   bool    // what Open reads is for sure what was compared
}

// shares says whether the part shares the blocks of the file.
func (u *update) shares() bool { return u != nil && u.begun && u.copies == nil }

// copier returns what copies the file to the part, nil where nothing does.
func (u *update) copier() *copier {
	if u == nil {
		return nil
	}
	return u.copies
}

// front returns how many leading bytes of the part are worth keeping, when so many of them are good.
func (u *update) front(good int64) int64 { return u.copies.front(max(good, u.right)) }

// Compare opens the file that is there, for Open to read it, and returns how many bytes of it may be those of d. See
// ring.Comparer.
func (t *Target) Compare(ctx context.Context, d v1.Descriptor) (size int64, err error) {
	t.mu.Lock()
	same := t.existing != nil
	t.mu.Unlock()
	if same || !t.o.Overwrite {
		return 0, nil
	}
	f, err := t.openOld()
	if f == nil || err != nil {
		return 0, err
	}
	s := &existing{f: f, begun: true, update: true}
	u := &update{old: s}
	if on, ok := f.(seeker); ok {
		u.holes = believed(on)
	}
	if err = f.Sync(); err == nil { // NFS sets the times when the bytes arrive
		s.info, err = f.Stat()
	}
	if err == nil {
		err = s.settle()
	}
	if err != nil {
		err = t.fail("compare", err)
	} else {
		u.had, err = t.goOn(ctx, s.info, d)
	}
	if err != nil {
		f.Close()
		return 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.update != nil {
		t.update.old.f.Close()
	}
	t.update = u
	s.equal.Store(min(s.info.Size(), d.Size))
	u.size = max(u.had, s.equal.Load())
	return u.size, nil
}

// mayUpdate says whether the file that is there may be updated with d: then less room is needed than for d, and the server, which
// knows whether it is an update, says whether what is free is enough.
func (t *Target) mayUpdate(d v1.Descriptor) bool {
	info, err := t.look(t.name)
	return leaf.In(d) && t.o.Overwrite && err == nil && info.Mode().IsRegular() && info.Size() >= leaf.Size
}

// goOn opens the part that a transfer before has left, if it is newer than the file, and returns how many of its bytes may be those
// of d.
func (t *Target) goOn(ctx context.Context, old fs.FileInfo, d v1.Descriptor) (had int64, err error) {
	info, err := t.look(t.temp)
	if err != nil || !info.Mode().IsRegular() {
		return 0, ctx.Err()
	}
	_, part, err := t.leftover()
	if err != nil {
		return 0, err
	}
	if part = min(part, d.Size); part < d.Size {
		part -= part % leaf.Size
	}
	if x, y := stat(info).Ctim, stat(old).Ctim; part == 0 || x.Nano() <= y.Nano() {
		return 0, nil
	}
	_, err = t.begin(ctx, part)
	return part, err
}

// openOld opens the file that will be replaced, or returns nil where there is none that can be read.
func (t *Target) openOld() (durable.File, error) {
	info, err := t.look(t.name)
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil // Offer has said what is wrong
	}
	f, err := t.fs.OpenFile(t.name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, t.fail("compare", err)
	}
	now, err := f.Stat()
	if err != nil || !now.Mode().IsRegular() {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openCompared reads what an update compares, from off on: of the part, or behind that of the file. mu is held.
func (t *Target) openCompared(ctx context.Context, u *update, off int64) (io.ReadCloser, error) {
	if off < u.had {
		return io.NopCloser(&endedReader{ctx, io.NewSectionReader(t.part.File, off, u.had-off)}), nil
	}
	open := func(off int64) (io.ReadCloser, error) {
		return io.NopCloser(&endedReader{ctx, io.NewSectionReader(u.old.f, off, u.size-off)}), nil
	}
	if f, ok := u.old.f.(seeker); ok {
		return openSoon(f, u.size, off, u.holes, open)
	}
	return open(off)
}

// hold returns the file that an update compares if it stays as it is: all of it was compared and is right, nobody has written to it
// since, and what it lacks of what was asked for can be given to it. mu is held.
func (t *Target) hold(u *update, d v1.Descriptor, off int64) *existing {
	s := u.old
	t.existing = nil
	if t.part == nil && off == d.Size && s.info.Size() == d.Size && t.ownable(s.info) && t.dressable(s.info) == nil && t.changed(s) == nil {
		t.existing, u.sure = s, true
	}
	return t.existing
}

// ownable says whether a file has the owner that one has which we make, or gets the one that was asked for.
func (t *Target) ownable(info fs.FileInfo) bool {
	return t.o.Owner != nil || int(stat(info).Uid) == t.uid
}

// Same reports whether what an update has compared is sure to be what Open reads now; see ring.Comparer.
func (t *Target) Same(v1.Descriptor) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.update != nil && t.update.sure
}

// beginUpdate has the part be a copy of the file behind what it had, or has it become one.
func (t *Target) beginUpdate(ctx context.Context, u *update, d v1.Descriptor, off int64) error {
	if u.begun {
		return nil
	}
	p, err := t.begin(ctx, u.had)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	u.begun, u.right = true, min(u.had, off)
	u.sure = u.size == u.had
	if !u.sure {
		if p.CloneBehind(u.old.f, u.had) == nil {
			u.sure = t.changed(u.old) == nil
		} else {
			u.copies = newCopier(t, u.old.f, p, u.had, u.size)
		}
		// Its length does not change any more: to make a file shorter would cut off what is copied to it meanwhile.
		if err := p.File.Truncate(d.Size); err != nil {
			return errors.Join(t.fail("copy", err), t.dropLocked())
		}
	}
	p.Ahead(u.size)
	return nil
}
