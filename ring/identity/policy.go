package identity

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// A Policy is what a node permits beyond its cache, read from policy.toml:
//
//	[[output]]
//	dir = "/data"            # files below it
//	overwrite = true         # also those that exist
//	directories = true       # also whole directories, whoever owns what is in them
//	[[device]]               # a block device, by its path
//	path = "/dev/disk/by-id/…"
//	[[device]]               # or by name: the only disk that fits all of these
//	name = "scratch"         # for --output device:scratch
//	model = "SAMSUNG MZ*"    # also serial, wwn
//	size = "900G..1T"
//	bus = "nvme"
//	[data]
//	plain = true             # data links without TLS
//	[limits]
//	rate = "500M"            # bytes per second
//	transfers = 4            # at once
//	[cache]
//	max = "200G"             # bytes of all blobs
//	free = "20G"             # bytes that stay free in the file system
//	mode = "0640"            # who may read it: 0600, 0640 or 0644
//	group = "hpc"            # the group whose rights mode sets
//
// The format is TOML 1.0 (https://toml.io/en/v1.0.0). Keys that are not listed here are errors. The
// zero Policy permits the cache only.
type Policy struct {
	Outputs []Output
	Devices []Device
	Data    Data
	Limits  Limits
	Cache   Cache

	path     string       // of the file, for hints
	absent   bool         // there is no file
	own      []string     // directories of the node itself: that of the file, and its cache
	warnings []*lineError // settings that are hardly meant
}

// Warnings returns a line for each setting that is hardly meant: it opens the system to anybody who may
// send, or makes the node useless. The file and the line of the setting stand in front.
func (p *Policy) Warnings() []string {
	var list []string
	for _, w := range p.warnings {
		list = append(list, (&PolicyError{File: p.path, Line: w.line, Err: w.err}).Error())
	}
	return list
}

// File returns the path of the policy file. found is false when there is none.
func (p *Policy) File() (path string, found bool) { return p.path, !p.absent }

// Output permits files below a directory.
type Output struct {
	// Dir is absolute and clean, in the sense of filepath.Clean.
	Dir string
	// Overwrite permits to replace files that exist.
	Overwrite bool
	// Directories permits whole directories with all that is in them: files of any owner, set-user-ID programs and devices.
	// With Overwrite one replaces what is there, so that what only that one has is lost. A directory in which that of another
	// rule lies is permitted only if that rule has both, too.
	Directories bool
}

// Data is what is permitted on the data plane.
type Data struct {
	// Plain permits links without TLS.
	Plain bool
}

// MaxTransfers is for how many transfers at once a node has the memory: each needs its part of the window
// from which it replays.
const MaxTransfers = 5

// Limits bound what transfers use of a node.
type Limits struct {
	// Rate is in bytes per second. 0 is no limit.
	Rate int64
	// Transfers is how many may run at once, at most MaxTransfers. 0 is the default.
	Transfers int
}

// Cache bounds the cache of the node, where the images that were not used for longest make room. It
// also says who may read the cache.
type Cache struct {
	// Max is the size of all blobs in bytes. 0 is no limit.
	Max int64
	// Free is how many bytes stay free in the file system of the cache.
	Free int64
	// Mode is that of the files: 0600, 0640 or 0644. 0 is not set.
	Mode fs.FileMode
	// Group is that of the files, a name or a number. "" is not set. It is never set without Mode.
	Group string
}

// A PolicyError says what is wrong in a policy file.
type PolicyError struct {
	File string
	// Line is where in File it is wrong, from 1. 0 is unknown.
	Line int
	Err  error
}

func (e *PolicyError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("policy %s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("policy %s: line %d: %v", e.File, e.Line, e.Err)
}

// Unwrap returns the cause.
func (e *PolicyError) Unwrap() error { return e.Err }

// A DeniedError says that a node's policy does not permit an output.
type DeniedError struct {
	// Path is the output that was asked for.
	Path string
	// File is the path of the policy that does not permit it.
	File string

	dir       bool     // Path is itself a directory below which files are permitted
	permitted []string // the directories that the policy does permit
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("output %s: not permitted by the policy of this node", e.Path)
}

// goodPlace is a directory that a policy may well permit.
const goodPlace = "/srv/dolly-img"

// Add returns the directory that the policy would have to permit, or "". It is never one of the
// system, where files that come over the network have no business.
func (e *DeniedError) Add() string {
	switch dir := filepath.Dir(e.Path); {
	case e.dir:
		return ""
	case !ofSystem(dir):
		return dir
	case len(e.permitted) > 0:
		return ""
	}
	return goodPlace
}

// Kind returns a kind that says what would permit the output. It is about the directory, the file of the
// policy, and where else the output could go.
func (e *DeniedError) Kind() (errkind.Kind, []string) {
	dir := filepath.Dir(e.Path)
	switch e.Add() {
	case dir:
		return "output-denied", []string{dir, e.File}
	case goodPlace:
		return "output-of-system", []string{dir, e.File, goodPlace}
	}
	if e.dir {
		return "output-below", []string{e.Path}
	}
	return "output-elsewhere", []string{dir, e.File, strings.Join(e.permitted, ", ")}
}

// ofSystem reports whether dir holds the operating system, or what many programs and users share, rather
// than data. A directory below /var/lib or /opt belongs to one program. The unit file of the daemon
// hides /home, /root and /tmp from it.
func ofSystem(dir string) bool {
	switch dir {
	case "/", "/media", "/opt", "/tmp", "/var", "/var/lib", "/var/lib/dolly-img", "/var/tmp":
		return true
	}
	for _, top := range []string{"/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/libx32", "/lost+found", "/proc", "/root", "/run", "/sbin",
		"/sys", "/usr", "/var/cache", "/var/lib/dolly-img/cache", "/var/lib/dpkg", "/var/lib/rpm", "/var/lib/systemd", "/var/lock", "/var/log", "/var/mail", "/var/run", "/var/spool"} {
		if dir == top || strings.HasPrefix(dir, top+"/") {
			return true
		}
	}
	return false
}

// LoadPolicy reads policy.toml in a directory of keys. Without the file it returns a
// Policy that permits the cache only. Group and others must not be able to write to the
// file. Errors are of type *PolicyError; if there are several, they are joined in the
// order of the file's lines. No output may be part of dir, nor of the directories own, such
// as the node's cache.
func LoadPolicy(dir string, own ...string) (*Policy, error) {
	path := filepath.Join(dir, policyFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Policy{path: path, absent: true}, nil
	}
	if err != nil {
		return nil, &PolicyError{File: path, Err: err}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, &PolicyError{File: path, Err: err}
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, &PolicyError{File: path, Err: fmt.Errorf("writable by group or others: chmod go-w %s", path)}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errors.New("larger than 1 MiB")
	}
	if err != nil {
		return nil, &PolicyError{File: path, Err: err}
	}
	p, wrong := parsePolicy(data)
	if len(wrong) == 1 {
		return nil, &PolicyError{File: path, Line: wrong[0].line, Err: wrong[0].err}
	}
	if len(wrong) > 1 {
		all := make([]error, len(wrong))
		for i, at := range wrong {
			all[i] = &PolicyError{File: path, Line: at.line, Err: at.err}
		}
		return nil, errors.Join(all...)
	}
	p.path = path
	p.own = append([]string{dir}, own...)
	return p, nil
}

// lineError is an error with the line it is in.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }
func (e *lineError) Unwrap() error { return e.err }
