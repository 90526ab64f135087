package wire

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// These are the questions that are no part of a transfer, and what answers them (PROTOCOL.md section 4, "Questions and
// wishes"). They exist since version 7.
type (
	Ask struct { // 27
		Images []Image `json:"images"`
		All    bool    `json:"all"`
	}
	Holds struct { // 28
		Images []Holding `json:"images"`
		More   int       `json:"more"`
		Free   int64     `json:"free"`
		Max    int64     `json:"max"`
		// Reserve is how many bytes have to stay free on the file system of the cache.
		Reserve int64  `json:"reserve"`
		Wanted  int64  `json:"wanted"`
		Code    Code   `json:"code"`
		Reason  string `json:"reason"`
	}
	Want struct { // 29
		Owner  string `json:"owner"`
		Images []Wish `json:"images"`
	}
	Wanted struct { // 30
		Code   Code   `json:"code"`
		Reason string `json:"reason"`
	}
)

// Image is a name in a cache, and the digest that it should lead to. One of them may be empty.
type Image struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
}

// Holding is what a node has of an image.
type Holding struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
	State  string        `json:"state"`
	// Named is the digest that the name leads to, or "", and NameOwner the warmer whose name it is, or "".
	Named     digest.Digest `json:"named"`
	NameOwner string        `json:"nameOwner"`
	Bytes     int64         `json:"bytes"` // -1 is unknown, as in Lacks
	Lacks     int64         `json:"lacks"`
	Owners    []string      `json:"owners"` // who wants it
	Why       string        `json:"why"`
}

// Wish is an image that somebody wants a node to keep.
type Wish struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
	Pin    bool          `json:"pin"`
	Keep   int           `json:"keep"`
}

// These are the states of a Holding.
const (
	HoldsAll  = "held"
	HoldsPart = "partly"
	HoldsNone = "missing"
)

// These bound questions and wishes (PROTOCOL.md section 3).
const (
	MaxImages = 1024 // in one message
	MaxName   = 512  // bytes of the name of an image
	MaxOwner  = 253  // bytes
	MaxOwners = 8    // of an image, in HOLDS
	MaxKeep   = 64   // digests of a name
)

// checkBounds returns an error if m is a question, a wish or an answer to one, and has something that these may not have.
func checkBounds(m Message) error {
	switch m := m.(type) {
	case *Ask:
		return each(m.Images, func(i Image) error { return checkImage(i.Name, i.Digest) })
	case *Holds:
		if m.More < 0 || m.Free < -1 || m.Max < 0 || m.Reserve < 0 || m.Wanted < 0 {
			return fmt.Errorf("a negative number")
		}
		return each(m.Images, Holding.check)
	case *Want:
		if m.Owner == "" || len(m.Owner) > MaxOwner {
			return fmt.Errorf("owner of %d bytes: want 1 to %d", len(m.Owner), MaxOwner)
		}
		return each(m.Images, func(w Wish) error {
			if w.Digest == "" || w.Keep < 0 || w.Keep > MaxKeep {
				return fmt.Errorf("a wish without a digest, or that keeps %d of them: want 0 to %d", w.Keep, MaxKeep)
			}
			return checkImage(w.Name, w.Digest)
		})
	case *Tend:
		return m.check()
	case *Tending:
		if m.Done < 0 || m.All < 0 {
			return fmt.Errorf("a negative number")
		}
	case *Tended:
		if m.More < 0 || m.Blobs < 0 || m.Bytes < 0 || m.Waits < 0 || len(m.Why) > maxReason {
			return fmt.Errorf("a negative number, or a reason of %d bytes", len(m.Why))
		}
		return each(m.Images, TendedImage.check)
	}
	return nil
}

func each[T any](images []T, check func(T) error) error {
	if len(images) > MaxImages {
		return fmt.Errorf("%d images: want at most %d", len(images), MaxImages)
	}
	for i, image := range images {
		if err := check(image); err != nil {
			return fmt.Errorf("image %d: %w", i, err)
		}
	}
	return nil
}

func (h Holding) check() error {
	switch {
	case h.State != HoldsAll && h.State != HoldsPart && h.State != HoldsNone:
		return fmt.Errorf("unknown state %.20q", h.State)
	case h.Bytes < -1 || h.Lacks < -1:
		return fmt.Errorf("a negative number of bytes")
	case len(h.Why) > maxReason:
		return fmt.Errorf("reason of %d bytes", len(h.Why))
	case len(h.NameOwner) > MaxOwner || h.NameOwner != "" && (h.Name == "" || h.Named == ""):
		return fmt.Errorf("the owner of a name that leads to nothing, or an owner of %d bytes", len(h.NameOwner))
	}
	if err := checkOwners(h.Owners); err != nil {
		return err
	}
	if err := checkDigest(h.Named); err != nil {
		return err
	}
	return checkImage(h.Name, h.Digest)
}

func checkOwners(owners []string) error {
	if len(owners) > MaxOwners {
		return fmt.Errorf("%d owners: want at most %d", len(owners), MaxOwners)
	}
	for _, owner := range owners {
		if owner == "" || len(owner) > MaxOwner {
			return fmt.Errorf("owner of %d bytes: want 1 to %d", len(owner), MaxOwner)
		}
	}
	return nil
}

func checkImage(name string, d digest.Digest) error {
	switch {
	case len(name) > MaxName:
		return fmt.Errorf("name of %d bytes: want at most %d", len(name), MaxName)
	case name == "" && d == "":
		return fmt.Errorf("neither a name nor a digest")
	}
	return checkDigest(d)
}

// checkDigest accepts the forms of the OCI image specification, and none.
func checkDigest(d digest.Digest) error {
	// Nearly all are of this form, and answers of many nodes have many: the regular expression of Validate takes ten times as long.
	if hex, ok := strings.CutPrefix(string(d), "sha256:"); d == "" || ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == "" {
		return nil
	}
	return d.Validate()
}
