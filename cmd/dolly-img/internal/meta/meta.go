package meta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dolly-img/dolly-img/ring"
)

// Kinds of a transfer.
const (
	KindImage = "image" // goes to the cache, and from there to Output
	KindRaw   = "raw"   // goes to Output
)

// Formats of an image's output; "" is the SIF that it holds.
const (
	FormatArchive = "oci-archive" // an OCI image layout in a tar
	FormatLayout  = "oci"         // an OCI image layout in a directory
)

const (
	metaVersion = 2        // 1 has neither NoKeep nor Pin
	maxMeta     = 16 << 10 // bytes of the encoded form
	maxPath     = 4096
)

// Transfer tells a node what the blobs of a transfer are and what to do with them. The
// ring carries it as it is. A node decodes it strictly: what it does not know it
// refuses, as it could not do what the sender meant.
type Transfer struct {
	Version int    `json:"version"`
	Kind    string `json:"kind"`
	Ref     string `json:"ref,omitempty"`     // the image's name in the cache
	Discard bool   `json:"discard,omitempty"` // verify and keep nothing
	Output  string `json:"output,omitempty"`  // absolute path of the file, "-" standard output
	NoKeep  bool   `json:"noKeep,omitempty"`  // an image goes to Output only
	Pin     bool   `json:"pin,omitempty"`     // the cache never evicts it
	Format  string `json:"format,omitempty"`  // of an image at Output: "" its SIF, formatArchive, formatLayout

	// Of a file at Output.
	Mode   uint32    `json:"mode,omitempty"`  // permission bits; 0: 0644
	Owner  string    `json:"owner,omitempty"` // "user", "user:group" or ":group", names or numbers as the node knows them
	Mkdir  bool      `json:"mkdir,omitempty"`
	Shared bool      `json:"shared,omitempty"` // a network file system is meant
	Mtime  time.Time `json:"mtime,omitzero"`
}

// KeepMode gives the output the permission bits of the source, unless the user set others. Of a source that
// has none, as /etc/shadow of some distributions, it is 0400: no bits at all would mean 0644 to a node.
func (m *Transfer) KeepMode(mode fs.FileMode) {
	if m.Mode != 0 {
		return
	}
	if m.Mode = uint32(mode.Perm()); m.Mode == 0 {
		m.Mode = 0o400
	}
}

// Encode is the form that travels, with the lowest version that has all of it.
func (m *Transfer) Encode() (json.RawMessage, error) {
	m.Version = m.least()
	if err := m.check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(m)
	if err == nil && len(b) > maxMeta {
		err = fmt.Errorf("description of the transfer: %d bytes, at most %d", len(b), maxMeta)
	}
	return b, err
}

// unknownMeta is what a node answers to a version that it does not know, also one of version 1.
const unknownMeta = "description of the transfer: version %d, this node knows %d"

// least is the lowest version that says all of m, so that older nodes take what they can.
func (m *Transfer) least() int {
	if len(m.newer()) > 0 {
		return 2
	}
	return 1
}

// newer are the flags of push that take more than version 1.
func (m *Transfer) newer() (flags []string) {
	if m.NoKeep {
		flags = append(flags, "--no-keep")
	}
	if m.Pin {
		flags = append(flags, "--pin")
	}
	return flags
}

// asksMore is unknownMeta of a node that knows less than it was asked for.
var asksMore = regexp.MustCompile(`description of the transfer: version (\d+), this node knows (\d+)$`)

// Outdated says in the rows of nodes that do not know this version what they need.
func (m *Transfer) Outdated(r *ring.Report) {
	for i := range r.Nodes {
		row := &r.Nodes[i]
		said := asksMore.FindStringSubmatch(row.Reason)
		if row.State != ring.Refused || said == nil || said[1] != strconv.Itoa(m.Version) {
			continue
		}
		row.Cause.After += fmt.Sprintf(": its dolly-img is too old for %s and has to be upgraded", strings.Join(m.newer(), " and "))
		row.Reason = row.Cause.String()
	}
}

// Decode reads what Encode wrote, and refuses what it does not know.
func Decode(b json.RawMessage) (*Transfer, error) {
	if len(b) > maxMeta {
		return nil, fmt.Errorf("description of the transfer: %d bytes, at most %d", len(b), maxMeta)
	}
	// The version first: a later one may have fields that are unknown here.
	var v struct{ Version int }
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("description of the transfer: %w", err)
	}
	if v.Version < 1 || v.Version > metaVersion {
		return nil, fmt.Errorf(unknownMeta, v.Version, metaVersion)
	}
	var m Transfer
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("description of the transfer: %w", err)
	}
	return &m, m.check()
}

// check is made on both ends: by the sender to say it early, by the node because the
// sender may be another program.
func (m *Transfer) check() error {
	switch {
	case m.Kind != KindImage && m.Kind != KindRaw:
		return fmt.Errorf("unknown kind of transfer %q", m.Kind)
	case m.Version < m.least():
		return fmt.Errorf("version %d with what version %d has", m.Version, m.least())
	case m.NoKeep && (m.Kind != KindImage || m.Output == "" || m.Format != "" || m.Ref != "" || m.Pin):
		return errors.New("only the SIF of an image can go to an output without being kept")
	case m.Pin && (m.Kind != KindImage || m.Ref == ""):
		return errors.New("only an image that is kept can be pinned")
	case m.Kind == KindImage && m.Ref == "" && !m.Discard && !m.NoKeep:
		return errors.New("an image without a name")
	case m.Kind == KindRaw && m.Ref != "":
		return errors.New("a raw transfer with an image name")
	case m.Discard && m.Output != "":
		return errors.New("an output that is to be discarded")
	case m.Kind == KindRaw && !m.Discard && m.Output == "":
		return errors.New("no output")
	case m.Kind == KindImage && m.Output == "-":
		return errors.New("an image cannot go to standard output")
	case m.Format != "" && m.Format != FormatArchive && m.Format != FormatLayout:
		return fmt.Errorf("unknown format of an output %q", m.Format)
	case m.Format != "" && (m.Kind != KindImage || m.Output == "" || m.Discard):
		return fmt.Errorf("format %q without an image and an output", m.Format)
	case m.Mode&^uint32(fs.ModePerm) != 0:
		return fmt.Errorf("mode %o: only permission bits can be set", m.Mode)
	}
	if m.Output != "" && m.Output != "-" {
		if err := CheckOutput(m.Output); err != nil {
			return err
		}
	}
	return nil
}

// CheckOutput refuses what is no path of an output on a node.
func CheckOutput(p string) error {
	switch {
	case len(p) > maxPath:
		return fmt.Errorf("output: path of %d bytes, at most %d", len(p), maxPath)
	case strings.ContainsRune(p, 0):
		return fmt.Errorf("output %q: a zero byte in the path", p)
	case !path.IsAbs(p) || path.Clean(p) != p || p == "/":
		return fmt.Errorf("output %s: want an absolute path in its shortest form", p)
	}
	return nil
}

// Keep notes what the image shall be called in the cache, unless it is not kept.
func (m *Transfer) Keep(ref string) {
	if !m.Discard && !m.NoKeep {
		m.Ref = ref
	}
}
