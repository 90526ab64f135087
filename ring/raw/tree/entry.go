package tree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The types of entries, as tar has them.
const (
	typeFile     = '0'
	typeHardLink = '1'
	typeSymlink  = '2'
	typeChar     = '3'
	typeBlock    = '4'
	typeDir      = '5'
	typeFIFO     = '6'
	typeRecords  = 'x'
)

// Limits of the stream, in bytes, and of the depth of directories.
const (
	block      = 512
	maxName    = 255
	maxPath    = 4095
	maxDepth   = 200
	maxRecords = 1 << 20
)

// Records of an entry.
const (
	keyXattr    = "SCHILY.xattr."
	keyGID      = "gid"
	keyLink     = "linkpath"
	keyModTime  = "mtime"
	keyPath     = "path"
	keySize     = "size"
	keyUID      = "uid"
	largestID   = 1<<21 - 1 // that seven octal digits can say
	largestSize = 1<<33 - 1 // that eleven octal digits can say
	largestDev  = 1<<21 - 1
)

// An entry is all that the stream says of one name, but for the bytes of a file.
type entry struct {
	path         string // relative to the top directory, which is "."
	kind         byte
	mode         uint32 // permission bits, set-user-ID, set-group-ID and sticky
	uid, gid     uint32
	sec          int64 // of the modification time
	nsec         int32
	size         int64  // of a file
	link         string // target of a symbolic link, or path of the entry that a hard link names
	major, minor uint32 // of a device
	xattrs       []xattr
}

// xattr is an extended attribute.
type xattr struct{ name, value string }

// parent returns the path of the directory that the entry is in, and its name there.
func (e *entry) parent() (dir, name string) {
	if i := strings.LastIndexByte(e.path, '/'); i >= 0 {
		return e.path[:i], e.path[i+1:]
	}
	return ".", e.path
}

// core appends what the file system says of the entry but for extended attributes, in a form of its own.
func (e *entry) core(b []byte) []byte {
	b = append(append(b, e.path...), 0, e.kind)
	b = append(append(b, e.link...), 0)
	for _, n := range []uint32{e.mode, e.uid, e.gid, uint32(e.nsec), e.major, e.minor} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(e.sec))
	return binary.BigEndian.AppendUint64(b, uint64(e.size))
}

// padding returns how many zeros follow n bytes, up to the next block.
func padding(n int64) int64 { return -n & (block - 1) }

// checkPath returns an error unless p is a relative path without dots.
func checkPath(p string) error {
	if len(p) > maxPath {
		return errors.New("the path is longer than 4095 bytes")
	}
	for name := range strings.SplitSeq(p, "/") {
		switch {
		case name == "", name == ".", name == "..", strings.IndexByte(name, 0) >= 0:
			return errors.New("not a path below the top directory")
		case len(name) > maxName:
			return errors.New("a name is longer than 255 bytes")
		}
	}
	if strings.Count(p, "/") >= maxDepth {
		return errors.New("directories are nested more than 200 deep")
	}
	return nil
}

// noID is no owner and no group: chown(2) takes it for "as it is".
const noID = 1<<32 - 1

// check returns what is wrong with an entry. The server checks to report it early, the node because the stream may be of
// another program.
func (e *entry) check() error {
	if e.path != "." {
		if err := checkPath(e.path); err != nil {
			return err
		}
	}
	linked := e.kind == typeHardLink || e.kind == typeSymlink
	device := e.kind == typeChar || e.kind == typeBlock
	switch {
	case e.path == "." && e.kind != typeDir:
		return errors.New("the top is not a directory")
	case !linked && !device && e.kind != typeFile && e.kind != typeDir && e.kind != typeFIFO:
		return fmt.Errorf("unknown type %q", e.kind)
	case e.mode&^0o7777 != 0:
		return fmt.Errorf("mode %o", e.mode)
	case e.uid == noID || e.gid == noID:
		return errors.New("no owner")
	case e.nsec < 0 || e.nsec >= 1e9:
		return errors.New("a time that is none")
	case e.size < 0 || e.kind != typeFile && e.size != 0:
		return fmt.Errorf("size %d", e.size)
	case linked != (e.link != "") || len(e.link) > maxPath || strings.IndexByte(e.link, 0) >= 0:
		return errors.New("a link without a target")
	case e.major > largestDev || e.minor > largestDev || !device && e.major|e.minor != 0:
		return errors.New("number of the device")
	case e.kind == typeHardLink && (e.mode|e.uid|e.gid != 0 || e.sec != 0 || e.nsec != 0 || len(e.xattrs) > 0):
		return errors.New("a hard link with attributes")
	}
	for i, x := range e.xattrs {
		if x.name == "" || strings.ContainsAny(x.name, "=\x00\n") || i > 0 && e.xattrs[i-1].name >= x.name {
			return fmt.Errorf("extended attribute %q: its name cannot be sent", x.name)
		}
	}
	if e.kind == typeHardLink {
		return checkPath(e.link)
	}
	return nil
}

// headers returns how many bytes encode appends. It makes the records in scratch, and returns that for the next call.
func (e *entry) headers(scratch []byte) (int64, []byte) {
	scratch = e.appendRecords(scratch[:0])
	n := int64(len(scratch))
	return 2*block + n + padding(n), scratch
}

// encode appends the headers of the entry to b.
func (e *entry) encode(b []byte) []byte {
	at := len(b) + block
	b = append(b, zeroPage[:block]...)
	b = e.appendRecords(b)
	n := int64(len(b) - at)
	appendHeader(b[:at-block], &header{name: "PaxHeaders", kind: typeRecords, mode: 0o644, size: n})
	b = append(b, zeroPage[:padding(n)]...)
	h := header{
		name: e.named(), link: e.link, kind: e.kind, mode: e.mode, size: e.size,
		uid: e.uid, gid: e.gid, mtime: min(max(e.sec, 0), largestSize), major: e.major, minor: e.minor,
	}
	if h.size > largestSize {
		h.size = 0
	}
	if h.uid > largestID {
		h.uid = 0
	}
	if h.gid > largestID {
		h.gid = 0
	}
	return appendHeader(b, &h)
}

// named returns the path as tar has it.
func (e *entry) named() string {
	if e.kind == typeDir {
		return e.path + "/"
	}
	return e.path
}

// appendRecords appends the PAX records of the entry.
func (e *entry) appendRecords(b []byte) []byte {
	for _, x := range e.xattrs {
		b = appendRecord(b, keyXattr+x.name, x.value)
	}
	if e.gid > largestID {
		b = appendRecord(b, keyGID, strconv.FormatUint(uint64(e.gid), 10))
	}
	if e.link != "" {
		b = appendRecord(b, keyLink, e.link)
	}
	var text [maxTime]byte
	b = appendRecord(b, keyModTime, appendTime(text[:0], e.sec, e.nsec))
	b = appendRecord(b, keyPath, e.named())
	if e.size > largestSize {
		b = appendRecord(b, keySize, strconv.FormatInt(e.size, 10))
	}
	if e.uid > largestID {
		b = appendRecord(b, keyUID, strconv.FormatUint(uint64(e.uid), 10))
	}
	return b
}

// appendRecord appends a record, whose first field is its own length.
func appendRecord[T string | []byte](b []byte, key string, value T) []byte {
	n := len(key) + len(value) + 3 // a blank, "=" and the end of the line
	digits := digitsOf(n)
	if digitsOf(n+digits) > digits {
		digits++
	}
	b = strconv.AppendInt(b, int64(n+digits), 10)
	b = append(b, ' ')
	b = append(b, key...)
	b = append(b, '=')
	b = append(b, value...)
	return append(b, '\n')
}

func digitsOf(n int) int {
	digits := 1
	for ; n > 9; n /= 10 {
		digits++
	}
	return digits
}

// maxTime is how many bytes a time has at most: a sign, nineteen digits, a point and nine more.
const maxTime = 30

// appendTime appends seconds with a fraction. The fraction of a time before 1970 counts backwards, too.
func appendTime(b []byte, sec int64, nsec int32) []byte {
	if sec < 0 && nsec > 0 {
		if sec++; sec == 0 {
			b = append(b, '-')
		}
		nsec = 1e9 - nsec
	}
	b = strconv.AppendInt(b, sec, 10)
	if nsec == 0 {
		return b
	}
	b = append(b, '.')
	for unit := int32(1e8); unit > 0; unit /= 10 {
		b = append(b, '0'+byte(nsec/unit%10))
	}
	return b
}

// parseTime reads what appendTime wrote.
func parseTime(s string) (sec int64, nsec int32, err error) {
	whole, fraction, _ := strings.Cut(s, ".")
	if sec, err = strconv.ParseInt(whole, 10, 64); err != nil || fraction == "" {
		return sec, 0, err
	}
	n, err := strconv.ParseInt(fraction, 10, 32)
	if err != nil || n < 0 || n >= 1e9 {
		return 0, 0, fmt.Errorf("time %q", s)
	}
	if nsec = int32(n); nsec > 0 && strings.HasPrefix(whole, "-") {
		return sec - 1, 1e9 - nsec, nil
	}
	return sec, nsec, nil
}

// recordsIn returns how many bytes of records follow the header b, with the zeros behind them.
func recordsIn(b []byte) (int, error) {
	n := number(b[124:135])
	if b[156] != typeRecords || n <= 0 || n > maxRecords {
		return 0, errors.New("not the header of an entry")
	}
	return int(n + padding(n)), nil
}

// errForm is the error of an entry that is not in the one form that the stream has.
var errForm = errors.New("not in the form that dolly-img sends")

// decode reads the headers of an entry, which are what encode has appended to nothing, into e.
//
// It encodes into scratch, and returns that for the next call.
func decode(b []byte, e *entry, scratch []byte) ([]byte, error) {
	h := b[len(b)-block:]
	n := number(b[124:135])
	if n < 0 || int64(len(b)) != 2*block+n+padding(n) {
		return scratch, errForm
	}
	*e = entry{
		kind: h[156], mode: uint32(number(h[100:107])), uid: uint32(number(h[108:115])), gid: uint32(number(h[116:123])),
		size: number(h[124:135]), major: uint32(number(h[329:336])), minor: uint32(number(h[337:344])),
	}
	if err := e.readRecords(string(b[block : block+n])); err != nil {
		return scratch, err
	}
	if e.kind == typeDir {
		e.path = strings.TrimSuffix(e.path, "/")
	}
	if err := e.check(); err != nil {
		return scratch, fmt.Errorf("%q: %w", shown(e.path), err)
	}
	if scratch = e.encode(scratch[:0]); !bytes.Equal(scratch, b) {
		return scratch, fmt.Errorf("%q: %w", shown(e.path), errForm)
	}
	return scratch, nil
}

// shown is as much of a path as an error repeats.
func shown(p string) string { return p[:min(len(p), 200)] }

// readRecords takes from the records what the header cannot say.
func (e *entry) readRecords(all string) error {
	for len(all) > 0 {
		i := strings.IndexByte(all, ' ')
		if i < 0 {
			return errForm
		}
		n, err := strconv.Atoi(all[:i])
		if err != nil || n <= i+1 || n > len(all) || all[n-1] != '\n' {
			return errForm
		}
		key, value, ok := strings.Cut(all[i+1:n-1], "=")
		if !ok {
			return errForm
		}
		if err := e.record(key, value); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

func (e *entry) record(key, value string) (err error) {
	id := func() uint32 {
		var n uint64
		n, err = strconv.ParseUint(value, 10, 32)
		return uint32(n)
	}
	switch key {
	case keyPath:
		e.path = value
	case keyLink:
		e.link = value
	case keyModTime:
		e.sec, e.nsec, err = parseTime(value)
	case keySize:
		e.size, err = strconv.ParseInt(value, 10, 64)
	case keyUID:
		e.uid = id()
	case keyGID:
		e.gid = id()
	default:
		name, ok := strings.CutPrefix(key, keyXattr)
		if !ok {
			return fmt.Errorf("unknown record %q", shown(key))
		}
		e.xattrs = append(e.xattrs, xattr{name, value})
	}
	return err
}

// sortXattrs puts attributes into the order of the stream.
func sortXattrs(all []xattr) {
	slices.SortFunc(all, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
}
