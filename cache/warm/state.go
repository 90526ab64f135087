package warm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// Bounds of a state.
const (
	maxState     = 64 << 20 // bytes of the file
	maxTags      = 10_000   // images of a state
	maxVariants  = 64       // platforms of an image
	stateVersion = 1
)

// State is what a controller remembers when it is started again; doc.go says why. It is JSON.
type State struct {
	Version int `json:"version"`
	// Blind says that an entry of the list was not found yet, and that an earlier controller may have found it.
	Blind  bool         `json:"blind,omitempty"`
	Images []ImageSaved `json:"images"`
}

// ImageSaved is what was found of one Ref.
type ImageSaved struct {
	Ref      string         `json:"ref"`
	List     digest.Digest  `json:"list"`
	Found    time.Time      `json:"found"`
	Next     time.Time      `json:"next"`
	Variants []VariantSaved `json:"variants"`
}

// VariantSaved is its image of one platform.
type VariantSaved struct {
	Platform string          `json:"platform"`
	Name     string          `json:"name"`
	Digest   digest.Digest   `json:"digest"`
	Bytes    int64           `json:"bytes"`
	Older    []digest.Digest `json:"older,omitempty"`
	// Warm is when it was last warm. It is zero if it never was.
	Warm time.Time `json:"warm,omitzero"`
}

// encode returns the bytes of the file.
func (s *State) encode() ([]byte, error) {
	data, err := json.MarshalIndent(s, "", " ")
	return append(data, '\n'), err
}

// decodeState reads what encode wrote, strictly.
func decodeState(data []byte) (*State, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	s := &State{}
	if err := d.Decode(s); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more than one value")
	}
	switch {
	case s.Version != stateVersion:
		return nil, fmt.Errorf("version %d, this program reads %d", s.Version, stateVersion)
	case len(s.Images) > maxTags:
		return nil, fmt.Errorf("%d images, at most %d", len(s.Images), maxTags)
	}
	for _, i := range s.Images {
		if err := i.check(); err != nil {
			return nil, fmt.Errorf("image %q: %w", i.Ref, err)
		}
	}
	return s, nil
}

func (i *ImageSaved) check() error {
	if i.Ref == "" || len(i.Variants) == 0 || len(i.Variants) > maxVariants {
		return errors.New("no ref, no variant or too many")
	}
	digests := []digest.Digest{i.List}
	for _, v := range i.Variants {
		if v.Name == "" || v.Bytes < 0 || len(v.Older) > maxOlder {
			return fmt.Errorf("platform %q: no name, a negative size or too many older ones", v.Platform)
		}
		digests = append(append(digests, v.Digest), v.Older...)
	}
	for _, d := range digests {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("%q: %w", d, err)
		}
	}
	return nil
}

const stateFile = "state.json"

// loadState reads the state from a directory. It is nil without an error if there is none.
func loadState(fsys durable.FS) (*State, error) {
	f, err := fsys.OpenFile(stateFile, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, maxState+1))
	if err == nil && len(data) > maxState {
		err = fmt.Errorf("larger than %d bytes", maxState)
	}
	var s *State
	if err == nil {
		s, err = decodeState(data)
	}
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", stateFile, err)
	}
	return s, nil
}

// save replaces the state in a directory.
func (s *State) save(fsys durable.FS) error {
	data, err := s.encode()
	if err == nil {
		err = fsys.Mkdir(temps, 0o700)
	}
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = durable.Replace(fsys, stateFile, temps, data, func(durable.File) error { return nil })
	}
	return err
}
