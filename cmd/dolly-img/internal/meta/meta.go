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
	KindImage = "image" // a container image, which goes to the cache, and from there to Output
	KindRaw   = "raw"   // a file, which goes to Output
)

// Formats of an image at Output. The format "" is the SIF that the image holds.
const (
	FormatArchive = "oci-archive" // an OCI image layout in a tar
	FormatLayout  = "oci"         // an OCI image layout in a directory
)

const (
	metaVersion = 5        // version 1 has neither NoKeep nor Pin, version 2 no Device, version 3 none of Split, NoSync, Tree and Device.Unread, version 4 no Tree.InPlace
	maxMeta     = 16 << 10 // bytes of the encoded form
	maxPath     = 4096
)

// Transfer tells a node what the blobs of a transfer are and what to do with them. The
// ring carries it as it is. A node decodes it strictly and refuses what it does not know,
// because it could not do what the sender wants.
type Transfer struct {
	Version int    `json:"version"`
	Kind    string `json:"kind"`
	// Ref is the name of the image in the cache.
	Ref string `json:"ref,omitempty"`
	// Discard says that the node verifies the blobs and keeps nothing.
	Discard bool `json:"discard,omitempty"`
	// Output is the absolute path of the output, or "-" for standard output. With Device it is what identity.IsDevice
	// takes for a device.
	Output string `json:"output,omitempty"`
	// NoKeep says that an image goes to Output only, and not to the cache.
	NoKeep bool `json:"noKeep,omitempty"`
	// Pin says that the cache never evicts the image.
	Pin bool `json:"pin,omitempty"`
	// Format is the format of an image at Output: "" for its SIF, FormatArchive or FormatLayout.
	Format string `json:"format,omitempty"`

	// Mode has the permission bits of the output; 0 means 0644.
	Mode uint32 `json:"mode,omitempty"`
	// Owner is "user", "user:group" or ":group", with names or numbers that the node knows.
	Owner string `json:"owner,omitempty"`
	// Mkdir says that missing parent directories of Output are made.
	Mkdir bool `json:"mkdir,omitempty"`
	// Shared allows an output on a network file system.
	Shared bool `json:"shared,omitempty"`
	// Mtime is the modification time of the output.
	Mtime time.Time `json:"mtime,omitzero"`

	// Split says that a file is written in parts: each blob is a part, and the first one goes to Output with _0 behind it.
	Split bool `json:"split,omitempty"`
	// NoSync says that the output is not made durable before the node says that it has it.
	NoSync bool `json:"noSync,omitempty"`

	// Device says that Output is a block device, and what comes to it.
	Device *Device `json:"device,omitempty"`
	// Tree says that Output is a directory, and what comes to it is the stream of package ring/raw/tree.
	Tree *Tree `json:"tree,omitempty"`
}

// Tree is what a node has to know of a directory that comes.
type Tree struct {
	// Special says that devices and named pipes are in it.
	Special bool `json:"special,omitempty"`
	// InPlace says that its files are replaced one by one in the directory that is there, and that nothing is removed.
	InPlace bool `json:"inPlace,omitempty"`
}

// KeepMode gives the output the permission bits of the source, unless the user set others. If the source has no bits at
// all, as /etc/shadow in some distributions, the output gets 0400, because 0 would mean 0644 to a node.
func (m *Transfer) KeepMode(mode fs.FileMode) {
	if m.Mode != 0 {
		return
	}
	if m.Mode = uint32(mode.Perm()); m.Mode == 0 {
		m.Mode = 0o400
	}
}

// Encode returns the form that travels, in the lowest version that can say all of it.
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

// unknownMeta is what a node answers to a version that it does not know. Nodes of version 1 use the same words.
const unknownMeta = "description of the transfer: version %d, this node knows %d"

// least returns the lowest version that can say all of m, so that older nodes take whatever they can.
func (m *Transfer) least() int {
	switch {
	case m.Tree != nil && m.Tree.InPlace:
		return 5
	case m.Split || m.NoSync || m.Tree != nil || m.Device != nil && m.Device.Unread:
		return 4
	case m.Device != nil:
		return 3
	case len(m.newer()) > 0:
		return 2
	}
	return 1
}

// newer names what m asks for that version 1 cannot say.
func (m *Transfer) newer() (wants []string) {
	switch {
	case m.Tree != nil && m.Tree.InPlace:
		wants = append(wants, "replacing the files of a directory one by one")
	case m.Tree != nil:
		wants = append(wants, "directories")
	}
	if m.Device != nil {
		wants = append(wants, "writing to a device")
	}
	if m.Device != nil && m.Device.Unread {
		wants = append(wants, "leaving out to read it back")
	}
	if m.Split {
		wants = append(wants, "writing a file in parts")
	}
	if m.NoSync {
		wants = append(wants, "a file that is not made durable")
	}
	if m.NoKeep {
		wants = append(wants, "an output without a copy in the cache")
	}
	if m.Pin {
		wants = append(wants, "pinning an image")
	}
	return wants
}

// asksMore matches unknownMeta.
var asksMore = regexp.MustCompile(`description of the transfer: version (\d+), this node knows (\d+)$`)

// Outdated adds to the rows of nodes that do not know this version why they need another dolly-img.
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

// Partly adds to the rows of nodes that do not say whether they have put a directory in place what they may have of it.
func (m *Transfer) Partly(r *ring.Report) {
	if m.Tree == nil || !m.Tree.InPlace {
		return
	}
	for i := range r.Nodes {
		row := &r.Nodes[i]
		if row.State == ring.Failed && row.Code == "unconfirmed" {
			row.Cause.After += "; the directory there may be partly the new one: push again"
			row.Reason = row.Cause.String()
		}
	}
}

// Decode reads what Encode wrote, and refuses what it does not know.
func Decode(b json.RawMessage) (*Transfer, error) {
	if len(b) > maxMeta {
		return nil, fmt.Errorf("description of the transfer: %d bytes, at most %d", len(b), maxMeta)
	}
	// The version is read first, because a later one may have fields that are unknown here.
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

// check returns what is wrong with m. The sender checks to report it early, and the node because the
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
	case (m.Split || m.NoSync) && (m.Kind != KindRaw || m.Output == "" || m.Output == "-" || m.Device != nil):
		return errors.New("only a file can be in parts, or not be made durable")
	case m.Tree != nil && (m.Kind != KindRaw || m.Output == "" || m.Output == "-" || m.Device != nil || m.Split || m.NoSync || m.Mode != 0 || !m.Mtime.IsZero()):
		return errors.New("a directory without an output, or with a mode or a time of its own")
	case m.Mode&^uint32(fs.ModePerm) != 0:
		return fmt.Errorf("mode %o: only permission bits can be set", m.Mode)
	}
	if m.Output != "" && m.Output != "-" && m.Device == nil {
		if err := CheckOutput(m.Output); err != nil {
			return err
		}
	}
	return m.checkDevice()
}

// CheckOutput returns an error if p cannot be the path of an output on a node.
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

// Keep notes the name that the image shall have in the cache. It does nothing if the image is not kept.
func (m *Transfer) Keep(ref string) {
	if !m.Discard && !m.NoKeep {
		m.Ref = ref
	}
}
