package warm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
)

const (
	snapshotVersion = 1
	// MaxSnapshot is how many bytes the JSON of a Snapshot may have: 1000 nodes with 20 images take 1 MB.
	MaxSnapshot = 256 << 20
)

// told is the document that a Snapshot is in.
type told struct {
	Version int `json:"version"`
	*Snapshot
}

// Encode returns the JSON of a snapshot, on one line.
func (s *Snapshot) Encode() ([]byte, error) {
	data, err := json.Marshal(told{snapshotVersion, s})
	return append(data, '\n'), err
}

// A VersionError says that a snapshot is of another version of the form.
type VersionError struct{ Version int }

func (e *VersionError) Error() string {
	return fmt.Sprintf("speaks version %d, this program %d", e.Version, snapshotVersion)
}

// ParseSnapshot reads what Encode wrote, strictly. One of another version is a *VersionError.
func ParseSnapshot(data []byte) (*Snapshot, error) {
	var any struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &any); err != nil {
		return nil, err
	}
	if any.Version != snapshotVersion {
		return nil, &VersionError{any.Version}
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	t := told{Snapshot: &Snapshot{}}
	if err := d.Decode(&t); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more than one value")
	}
	return t.Snapshot, t.check()
}

var (
	imageStates = []ImageState{ImageWarm, ImageWarming, ImageDegraded, ImageBlocked}
	nodeStates  = []NodeState{NodeWarm, NodeWarming, NodeBehind, NodeMissing, NodeFull, NodeFailed, NodeConflict, NodeAway, NodeUnknown}
)

func (s *Snapshot) check() error {
	if s.Groups == nil || s.Images == nil {
		return errors.New("no groups or no images")
	}
	for _, g := range s.Groups {
		if g.Name == "" || g.Nodes < 0 {
			return fmt.Errorf("group %q with %d nodes", g.Name, g.Nodes)
		}
	}
	for _, i := range s.Images {
		if err := i.check(); err != nil {
			return fmt.Errorf("image %q: %w", i.Ref, err)
		}
	}
	return nil
}

func (i *ImageStatus) check() error {
	switch {
	case i.Ref == "" || i.Nodes == nil || i.Rate < 0 || i.Left < 0:
		return errors.New("no ref, no nodes or a negative number")
	case !slices.Contains(imageStates, i.State):
		return fmt.Errorf("unknown state %q", i.State)
	case (i.Name == "") != (i.Digest == ""):
		return errors.New("a name without a digest, or the reverse")
	}
	warm, seen := 0, map[string]bool{}
	digests := []digest.Digest{i.Digest}
	for _, n := range i.Nodes {
		switch {
		case n.Node == "" || seen[n.Node]:
			return fmt.Errorf("node %q is empty or there twice", n.Node)
		case !slices.Contains(nodeStates, n.State):
			return fmt.Errorf("node %q: unknown state %q", n.Node, n.State)
		case n.State == NodeWarm:
			warm++
		}
		seen[n.Node] = true
		digests = append(digests, n.Behind)
	}
	if warm != i.Warm {
		return fmt.Errorf("%d nodes are warm, and it says %d", warm, i.Warm)
	}
	for _, d := range digests {
		if d != "" && d.Validate() != nil {
			return fmt.Errorf("%q is no digest", d)
		}
	}
	return nil
}
