package raw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Split is a file that a node writes in parts, NAME_0, NAME_1 and so on: a Sink with one blob for each. The title of each
// blob (v1.AnnotationTitle) tells it from the others.
//
// Whoever reads the parts reads NAME_0 and goes on until one is not there. So NAME_0 is the first to go and the last to come:
// at every instant there are all of the old parts, or all of the new ones, or no NAME_0. Parts of the old file behind the last
// new one are removed.
//
// One transfer at a time writes the parts of a file, however many it has: from the first Begin to Close it has the part file of
// NAME_ locked, which gets no bytes.
type Split struct {
	o     TargetOptions
	open  func() (durable.FS, error) // opens o.Dir; nil: by its path
	lock  *Target                    // of the name that is locked; made by the first Offer
	mu    sync.Mutex                 // of held
	held  bool                       // the lock is
	parts []*Target                  // made by the first Offer
	at    map[string]int             // the part of a blob, by its title
	aside []string                   // what each part was before, under another name; "" where it was nothing
	stale []string                   // the names of old parts behind the last one
	gone  []string                   // what they are called while they may have to come back
}

// NewSplit checks the name of the whole file. Close frees what Offer opens.
func NewSplit(o TargetOptions) (*Split, error) {
	t, err := NewTarget(o)
	if err != nil {
		return nil, err
	}
	return &Split{o: o}, t.Close()
}

// String is the path of the whole file, for logs.
func (s *Split) String() string { return PartName(path.Join(s.o.Dir, s.o.Name), 0) + " and so on" }

// LockName returns the name of which the part file is locked while somebody writes the parts of a file.
func LockName(path string) string { return path + "_" }

// target makes the target of a name.
func (s *Split) target(name string) (*Target, error) {
	o := s.o
	o.Name = name
	if s.open != nil {
		return newTarget(s.open, o)
	}
	return NewTarget(o)
}

// Offer is that of each part, and checks that there is room for all of them together.
func (s *Split) Offer(ctx context.Context, blobs []v1.Descriptor) (held []int64, free int64, err error) {
	if err := s.assign(blobs); err != nil {
		return nil, 0, err
	}
	if err := s.taken(); err != nil {
		return nil, 0, err
	}
	free = -1
	var need int64
	for i, t := range s.parts {
		part, room, err := t.Offer(ctx, blobs[i:i+1])
		if err != nil {
			return nil, 0, err
		}
		held = append(held, part[0])
		if room >= 0 {
			need += max(0, blobs[i].Size-part[0])
			free = max(free, room)
		}
	}
	if free >= 0 && need > free {
		return nil, 0, s.parts[0].tooSmall(need, free)
	}
	return held, free, s.behind()
}

// assign makes the targets.
func (s *Split) assign(blobs []v1.Descriptor) error {
	if len(blobs) > MaxParts {
		return fmt.Errorf("output %s: %d parts, at most %d", s, len(blobs), MaxParts)
	}
	at := map[string]int{}
	for i, d := range blobs {
		title := d.Annotations[v1.AnnotationTitle]
		if _, twice := at[title]; twice || title == "" {
			return fmt.Errorf("output %s: part %d has no title of its own", s, i)
		}
		at[title] = i
	}
	if s.at = at; len(s.parts) > 0 {
		if len(s.parts) != len(blobs) {
			return fmt.Errorf("output %s: %d parts, and %d before", s, len(blobs), len(s.parts))
		}
		return nil
	}
	lock, err := s.target(LockName(s.o.Name))
	if err != nil {
		return err
	}
	lock.title = s.String()
	s.lock = lock
	for n := range blobs {
		t, err := s.target(PartName(s.o.Name, n))
		if err != nil {
			return errors.Join(err, s.Close())
		}
		s.parts = append(s.parts, t)
	}
	return nil
}

// taken returns ErrBusy where another transfer has the lock.
func (s *Split) taken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held {
		return nil
	}
	err := s.lock.walk()
	if err == nil {
		_, _, err = s.lock.leftover()
	}
	return err
}

// take takes the lock, and looks again at what whoever had it before has left behind the last part.
func (s *Split) take(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held {
		return nil
	}
	if _, err := s.lock.begin(ctx, 0); err != nil {
		return err
	}
	s.held = true
	if last := s.parts[len(s.parts)-1]; last.missing() { // its directory was made meanwhile
		if err := last.walk(); err != nil {
			return err
		}
	}
	return s.behind()
}

// behind finds the old parts behind the last new one.
func (s *Split) behind() error {
	s.stale = nil
	last := s.parts[len(s.parts)-1]
	for n := len(s.parts); ; n++ {
		name := path.Base(PartName(s.o.Name, n))
		info, err := last.look(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return last.fail("look at the parts behind it", err)
		case !s.o.Overwrite || !info.Mode().IsRegular() || n >= len(s.parts)+MaxParts:
			return errkind.Errorf("output-part", "output %s: %s is there, and would be taken for one more part", last.title, name)
		}
		s.stale = append(s.stale, name)
	}
}

// Begin is that of the part that d is.
func (s *Split) Begin(ctx context.Context, d v1.Descriptor, off int64) (ring.Writer, error) {
	t, err := s.of(d)
	if err != nil {
		return nil, err
	}
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	return t.Begin(ctx, d, off)
}

// Open is that of the part that d is.
func (s *Split) Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	t, err := s.of(d)
	if err != nil {
		return nil, err
	}
	return t.Open(ctx, d, off)
}

func (s *Split) of(d v1.Descriptor) (*Target, error) {
	i, ok := s.at[d.Annotations[v1.AnnotationTitle]]
	if !ok {
		return nil, fmt.Errorf("output %s: a part that was not offered", s)
	}
	return s.parts[i], nil
}

// Prepare is that of all parts: nothing is to be switched if that is so of each, and no old part is behind them.
func (s *Split) Prepare(ctx context.Context, blobs []v1.Descriptor) (inPlace bool, err error) {
	inPlace = len(s.stale) == 0
	for i, t := range s.parts {
		in, err := t.Prepare(ctx, blobs[i:i+1])
		if err != nil {
			return false, err
		}
		inPlace = inPlace && in
	}
	return inPlace, nil
}

// Publish switches all parts. If one cannot be switched, all are what they were before.
func (s *Split) Publish(ctx context.Context) error {
	err := s.setOldAside()
	for i := len(s.parts) - 1; i >= 0 && err == nil; i-- {
		err = s.parts[i].Publish(ctx)
	}
	if err != nil {
		return errors.Join(err, s.restore())
	}
	return s.dropOld()
}

// setOldAside takes the old NAME_0 away, and gives the other old parts a second name each, under which they can come back.
// What a transfer that is killed meanwhile leaves under these names goes with the next one.
func (s *Split) setOldAside() error {
	s.aside = make([]string, len(s.parts))
	for i, t := range s.parts {
		info, err := t.look(t.name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && (!info.Mode().IsRegular() || s.keeps(t)) {
			continue // who replaces it will say what is wrong
		}
		if err != nil {
			return t.fail("look at it", err)
		}
		name := asideName()
		if err := t.fs.Link(t.name, name); err != nil {
			return t.fail("keep the old part", err)
		}
		s.aside[i] = name
	}
	first := s.parts[0]
	if s.aside[0] != "" {
		if err := first.fs.Remove(first.name); err != nil {
			return first.fail("remove the old part", err)
		}
		if err := first.syncDir(); err != nil {
			return err
		}
	}
	last := s.parts[len(s.parts)-1]
	for _, name := range s.stale {
		aside := asideName()
		if err := last.fs.Rename(name, aside); err != nil {
			return last.fail("take the old part "+name+" away", err)
		}
		s.gone = append(s.gone, aside)
	}
	return nil
}

// keeps reports whether a part is there already, and stays.
func (s *Split) keeps(t *Target) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.existing != nil
}

// restore gives everything the name that it had. NAME_0 comes last.
func (s *Split) restore() error {
	var errs []error
	last := s.parts[len(s.parts)-1]
	for i, aside := range s.gone {
		errs = append(errs, last.fs.Rename(aside, s.stale[i]))
	}
	for i, t := range slices.Backward(s.parts) {
		if old := s.aside[i]; old != "" {
			errs = append(errs, t.fs.Rename(old, t.name))
			if info, err := t.fs.Lstat(old); err == nil && info.Mode().IsRegular() {
				errs = append(errs, t.fs.Remove(old)) // both were names of one file, and a rename leaves them then
			}
		} else if t.wasPublished() && !s.keeps(t) {
			errs = append(errs, t.fs.Remove(t.name))
		}
	}
	return errors.Join(append(errs, last.syncDir())...)
}

func (t *Target) wasPublished() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.published
}

// dropOld removes the old parts. They have no name any more that anybody looks for, so an error is none of the transfer.
func (s *Split) dropOld() error {
	for i, t := range s.parts {
		if s.aside[i] != "" {
			_ = t.fs.Remove(s.aside[i])
		}
	}
	last := s.parts[len(s.parts)-1]
	for _, aside := range s.gone {
		_ = last.fs.Remove(aside)
	}
	if len(s.gone) == 0 {
		return nil
	}
	return last.syncDir()
}

// syncDir makes the names in the directory durable.
func (t *Target) syncDir() error {
	if t.o.NoSync {
		return nil
	}
	if err := t.fs.SyncDir("."); err != nil {
		return t.fail("make the names durable", err)
	}
	return nil
}

// Keep has Close leave the parts that are written.
func (s *Split) Keep() {
	for _, t := range s.parts {
		t.Keep()
	}
}

// Close closes all parts, and gives the lock back.
func (s *Split) Close() error {
	var errs []error
	for _, t := range s.parts {
		errs = append(errs, t.Close())
	}
	s.parts = nil
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}

var (
	_ ring.Sink     = (*Split)(nil)
	_ ring.Opener   = (*Split)(nil)
	_ ring.Keeper   = (*Split)(nil)
	_ ring.Preparer = (*Split)(nil)
	_ io.Closer     = (*Split)(nil)
	_ fmt.Stringer  = (*Split)(nil)
)
