package wire

import (
	"fmt"

	"github.com/opencontainers/go-digest"
)

// These tend the cache of a node (PROTOCOL.md section 4, "Tending a cache"). They exist since version 8.
type (
	Tend struct { // 31
		Do    string   `json:"do"`
		Names []string `json:"names"`
		// Max, Free and Grace, in seconds, are for DoCollect.
		Max   int64 `json:"max"`
		Free  int64 `json:"free"`
		Grace int64 `json:"grace"`
	}
	Tending struct { // 32
		Done int64 `json:"done"`
		All  int64 `json:"all"`
	}
	Tended struct { // 33
		Images []TendedImage `json:"images"`
		More   int           `json:"more"`
		Blobs  int           `json:"blobs"`
		Bytes  int64         `json:"bytes"`
		Waits  int64         `json:"waits"`
		Over   bool          `json:"over"`
		Why    string        `json:"why"`
		Code   Code          `json:"code"`
		Reason string        `json:"reason"`
	}
)

// TendedImage is an image that was removed, or that is not right, or of which only a digest is known that is not.
type TendedImage struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
	Pinned bool          `json:"pinned"` // it was
	Owners []string      `json:"owners"` // who wants it still
	Why    string        `json:"why"`
}

// These are what a Tend may have a node do.
const (
	DoRemove  = "remove"
	DoCollect = "collect"
	DoVerify  = "verify"
	DoPin     = "pin"
	DoUnpin   = "unpin"
)

func (m *Tend) check() error {
	named := false
	switch m.Do {
	case DoRemove, DoPin, DoUnpin:
		named = true
	case DoCollect, DoVerify:
	default:
		return fmt.Errorf("unknown work %.20q", m.Do)
	}
	switch {
	case named != (len(m.Names) > 0) || len(m.Names) > MaxImages:
		return fmt.Errorf("%s has %d names", m.Do, len(m.Names))
	case m.Max < 0 || m.Free < 0 || m.Grace < 0:
		return fmt.Errorf("a negative number")
	case m.Do != DoCollect && (m.Max > 0 || m.Free > 0 || m.Grace > 0):
		return fmt.Errorf("%s has limits", m.Do)
	}
	for _, name := range m.Names {
		if name == "" || len(name) > MaxName {
			return fmt.Errorf("name of %d bytes: want 1 to %d", len(name), MaxName)
		}
	}
	return nil
}

func (i TendedImage) check() error {
	if len(i.Why) > maxReason {
		return fmt.Errorf("reason of %d bytes", len(i.Why))
	}
	if err := checkOwners(i.Owners); err != nil {
		return err
	}
	if i.Name == "" && i.Digest == "" && i.Why != "" {
		return nil // a file that is no blob
	}
	return checkImage(i.Name, i.Digest)
}
