package ring

import (
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// This file has what the cache of a node is told to do (PROTOCOL.md section 4, "Tending a cache").

// Doing is a kind of work on a cache.
type Doing string

// These are the kinds of work.
const (
	Removes  = Doing(wire.DoRemove)  // takes names away, and the blobs that nothing else needs
	Collects = Doing(wire.DoCollect) // removes the blobs that no image needs, and images to keep limits
	Verifies = Doing(wire.DoVerify)  // reads every blob, and compares it with its digest
	Pins     = Doing(wire.DoPin)     // keeps what names lead to, as a wish of OwnerLocal
	Unpins   = Doing(wire.DoUnpin)   // lets that go
)

// Work is what the cache of a node is told to do.
type Work struct {
	Do Doing
	// Names are what is removed, pinned or not pinned. They may be short ones that mean one image of the cache each.
	Names []string
	// Max is how many bytes all blobs may have, Free how many have to be free on the file system, 0 being no limit, and Grace
	// for how long a blob that no image needs stays, in whole seconds. They are for Collects only.
	Max, Free int64
	Grace     time.Duration
}

func (w Work) message() *wire.Tend {
	return &wire.Tend{Do: string(w.Do), Names: w.Names, Max: w.Max, Free: w.Free, Grace: int64(w.Grace / time.Second)}
}

func workOf(m *wire.Tend) Work {
	return Work{Do: Doing(m.Do), Names: m.Names, Max: m.Max, Free: m.Free, Grace: time.Duration(min(m.Grace, maxGrace)) * time.Second}
}

// maxGrace is the longest grace in seconds that a time.Duration can be.
const maxGrace = int64(1<<63-1) / int64(time.Second)

// Tended is what work on a cache has done.
type Tended struct {
	// Images are those that were removed, that are not right, or whose pins have changed, and More is how many there are beyond
	// MaxImages.
	Images []TendedImage
	More   int
	// Blobs and Bytes are those that were removed or, by Verifies, read.
	Blobs int
	Bytes int64
	// Waits is how many bytes no image needs that stay for now.
	Waits int64
	// Over says that the limits are not kept.
	Over bool
	// Why says in words what keeps the limits from being kept. It may be "".
	Why string
}

// TendedImage is an image on which work was done.
type TendedImage struct {
	// Name may be "" where Verifies found something about a blob. Digest is "" where the cache does not say it, as of what it
	// removed, and both are where a file is no blob.
	Name   string
	Digest digest.Digest
	// Pinned says that it was pinned when it was removed.
	Pinned bool
	// Owners are who still wants what was removed, so that its blobs stay, the first eight.
	Owners []string
	// Why says what is not right.
	Why string
}

// message makes the answer of a node. What is too long for one is cut off or left out.
func (t Tended) message() *wire.Tended {
	m := &wire.Tended{More: t.More, Blobs: t.Blobs, Bytes: t.Bytes, Waits: t.Waits, Over: t.Over, Why: t.Why[:min(len(t.Why), maxWhy)]}
	for _, i := range t.Images {
		if len(m.Images) == MaxImages || len(i.Name) > MaxImageName {
			m.More++
			continue
		}
		m.Images = append(m.Images, wire.TendedImage{
			Name: i.Name, Digest: i.Digest, Pinned: i.Pinned, Owners: i.Owners[:min(len(i.Owners), wire.MaxOwners)], Why: i.Why[:min(len(i.Why), maxWhy)],
		})
	}
	return m
}

// tended reads the answer of a node, whose words are printable here.
func tended(m *wire.Tended) Tended {
	t := Tended{More: m.More, Blobs: m.Blobs, Bytes: m.Bytes, Waits: m.Waits, Over: m.Over, Why: wire.Printable(m.Why)}
	for _, i := range m.Images {
		for k, owner := range i.Owners {
			i.Owners[k] = wire.Printable(owner)
		}
		t.Images = append(t.Images, TendedImage{wire.Printable(i.Name), i.Digest, i.Pinned, i.Owners, wire.Printable(i.Why)})
	}
	return t
}

// check returns an error about work that cannot be said.
func (w Work) check() error {
	if w.Grace%time.Second != 0 {
		return fmt.Errorf("grace %v: want whole seconds", w.Grace)
	}
	return nil
}
