package ring

import (
	"context"
	"crypto/x509"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// This file has what a node is asked and told beside transfers (PROTOCOL.md section 4, "Questions and wishes").

// The most images that a question, its answer and the wishes of an owner have, and the most bytes of the name of one.
const (
	MaxImages    = wire.MaxImages
	MaxImageName = wire.MaxName
)

// OwnerLocal is the owner of the wishes of whoever uses the commands on a node. No warmer may have this name.
const OwnerLocal = "local"

// Image is a name in the cache of a node, and the digest that it should lead to. One of them may be empty.
type Image struct {
	Name   string
	Digest digest.Digest
}

// Question is what a node is asked.
type Question struct {
	// Images are what is asked about.
	Images []Image
	// All asks about every other image, too, for which the node has a name.
	All bool
}

// HoldState is how much a node has of an image.
type HoldState string

// These are the states of an image on a node.
const (
	HoldsAll  = HoldState(wire.HoldsAll)  // every blob, as long as it has to be and right when it was written or verified last
	HoldsPart = HoldState(wire.HoldsPart) // the manifest, and not all of what it needs
	HoldsNone = HoldState(wire.HoldsNone) // not even the manifest
)

// HeldImage is what a node says of one image.
type HeldImage struct {
	// Name and Digest are those of the question. Where it has no digest, Digest is Named.
	Name   string
	Digest digest.Digest
	// State is that of Digest.
	State HoldState
	// Named is the digest that the name leads to, or "".
	Named digest.Digest
	// NameOwner is the warmer whose name it is. No other one may make it lead to another digest. "" is that every warmer may.
	NameOwner string
	// Bytes is how long all blobs of the image are together, and Lacks how much of that is not there at all. -1 is unknown.
	Bytes, Lacks int64
	// Owners are who wants the node to keep it, the first eight. OwnerLocal comes first.
	Owners []string
	// Why says what keeps an image from being held, or is "".
	Why string
}

// Warm reports whether the node has every blob of the digest, and the name leads to it.
func (h HeldImage) Warm() bool { return h.State == HoldsAll && h.Digest == h.Named && h.Named != "" }

// Holdings is what a node answers to a Question.
type Holdings struct {
	// Images has one element for each image of the question, in its order, and then the others.
	Images []HeldImage
	// More is how many images were left out, because an answer has MaxImages at most.
	More int
	// Free is how many bytes the cache could take, once what may go is gone; -1 is unknown.
	Free int64
	// Max is how many bytes the cache may have, and Reserve how many have to stay free on its file system. 0 is no limit.
	Max, Reserve int64
	// Wanted is how many bytes stay because somebody wants them.
	Wanted int64
}

// Wish is an image that somebody wants a node to keep.
type Wish struct {
	Name   string
	Digest digest.Digest
	// Pin says that it stays as a pinned image does.
	Pin bool
	// Keep is how many digests of the name are kept. 0 is 1.
	Keep int
}

// Client is who opened a control connection to a node.
type Client struct {
	// Name and Role are those in its certificate.
	Name string
	Role Role
	// Certificate is nil in a simulation without TLS.
	Certificate *x509.Certificate
	// Addr is where it comes from, as "host:port".
	Addr string
}

// Stock is what a node keeps between transfers. One call at a time is made to Holds and SetWishes together, and transfers go on
// beside it. The context of these ends after 20 s.
type Stock interface {
	// Holds answers a question. It takes no lock that a transfer waits for, and reads no blobs but manifests. The answer has an
	// element for each image of the question, and was true at some moment of the last second.
	Holds(ctx context.Context, q Question) (Holdings, error)
	// SetWishes replaces the wishes of an owner as a whole, durably. Who asked for it may do so.
	SetWishes(ctx context.Context, owner string, wishes []Wish) error
	// Tend carries out some work, for who may have it done. For Verifies it calls got as it gets on, with how many bytes of all are
	// read, where 0 is an unknown number. One call at a time is made for Verifies, and one for all others, beside Holds and
	// SetWishes. The context ends when nobody waits for the work any more.
	Tend(ctx context.Context, w Work, got func(done, all int64)) (Tended, error)
}
