package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dolly-img/dolly-img/ring"
)

// reportFile is the file of --report. It is opened before anything else is done, so that an error comes
// before the transfer and not after it. The file appears whole or not at all.
type reportFile struct {
	path string
	temp *os.File
}

// openReport prepares a report at path. It returns nil if path is "".
func openReport(path string) (*reportFile, error) {
	if path == "" {
		return nil, nil
	}
	const hint = "name a file in a directory that can be written to"
	if path == "-" {
		return nil, hintf("--json prints it on standard output, as its last line", "report -: it goes to a file")
	}
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, hintf(hint, "report %s: not a regular file", path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, hintf(hint, "report: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, hintf(hint, "report %s: %w", path, reasonOf(err))
	}
	return &reportFile{path, temp}, nil
}

// reasonOf returns err without the name of the file: that is a temporary one, which the user did not name.
func reasonOf(err error) error {
	if p := new(fs.PathError); errors.As(err, &p) {
		return p.Err
	}
	return err
}

// write puts the report under its name. It is called once.
func (f *reportFile) write(r *ring.Report) error {
	if f == nil {
		return nil
	}
	err := f.put(r)
	if err != nil {
		os.Remove(f.temp.Name())
	}
	return err
}

func (f *reportFile) put(r *ring.Report) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		_, err = f.temp.Write(append(b, '\n'))
	}
	if err == nil {
		err = f.temp.Chmod(0o644)
	}
	if cerr := f.temp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.temp.Name(), f.path)
	}
	return err
}
