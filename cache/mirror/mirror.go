// Package mirror serves a cache to the container runtimes of its node: the pull part of
// the OCI distribution specification, read-only, as an http.Handler.
//
//	GET /v2/                               says that this is a registry
//	GET /v2/NAME/manifests/TAG or DIGEST
//	GET /v2/NAME/blobs/DIGEST              with Range
//	GET /v2/NAME/tags/list                 n= and last= select a part
//	GET /v2/NAME/referrers/DIGEST          artifactType= filters
//
// and HEAD of each. There are two ways to say which registry NAME belongs to: containerd adds
// ?ns=HOST, while podman and skopeo put the host in front of the path, with _ for the colon
// of a port (registries.conf: location = "127.0.0.1:5050/docker.io"). If an image is not in the
// cache, or not whole, the answer is 404, and the runtime asks the registry itself. The same
// holds for a list of platforms if one of its images is not whole, because a runtime
// that has the manifest asks nobody else for the rest. Every answer has the header
// X-Dolly-Img-Mirror.
//
// The mirror gives only what a reference of the requested repository reaches, and only bytes that
// were verified. By digest it also gives the images that somebody wants for a name of the repository (see the wishes of package
// cache) though the name leads to another one by now: a warmer keeps older ones so that they can still be started. An image whose manifest was requested stays until a minute after the last
// request of its repository, even if its name moves or is removed; but unless it is being pulled, it goes for a
// transfer that lacks room.
// https://github.com/opencontainers/distribution-spec/blob/main/spec.md
package mirror

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
)

type mirror struct {
	store *cache.Cache
	log   *slog.Logger
	told  func(Result)
	held  holds
}

// Result is what became of a request for something of a repository.
type Result string

// Results of requests.
const (
	Hit     Result = "hit"
	Miss    Result = "miss"    // the runtime has to ask the registry
	Refused Result = "refused" // it was malformed, or no read
	Failed  Result = "error"   // the cache could not be read
)

// New returns the handler. A nil log is silent. told is called with the result of each request, but for those that only ask whether this
// is a registry. It must not block. It may be nil.
func New(store *cache.Cache, log *slog.Logger, told func(Result)) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if told == nil {
		told = func(Result) {}
	}
	return &mirror{store: store, log: log, told: told, held: holds{repo: map[string]*held{}}}
}

var (
	// A registry with its port may be the first part.
	nameForm = regexp.MustCompile(`^[a-zA-Z0-9]+(([._:]|__|-+)[a-zA-Z0-9]+)*(/[a-zA-Z0-9]+(([._]|__|-+)[a-zA-Z0-9]+)*)*$`)
	tagForm  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]*$`)
	hostForm = regexp.MustCompile(`^([a-zA-Z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?$`)
)

// These are the longest name and tag, in bytes. They are not in the expressions, because a count there is unrolled, which
// would make every command slower to start.
const (
	maxName = 512
	maxTag  = 128
)

// request is what a client asks for.
type request struct {
	repo string // with the registry
	kind string // manifests, blobs, tags, referrers
	ref  string // tag or digest
}

// parse reads path and ns. The failure that it returns has a code of the specification.
func parse(path, ns string) (request, *failure) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return request{}, &failure{http.StatusNotFound, "UNSUPPORTED", "no such path"}
	}
	parts := strings.Split(rest, "/")
	if len(parts) < 3 {
		return request{}, &failure{http.StatusNotFound, "NAME_UNKNOWN", "no such path"}
	}
	n := len(parts)
	r := request{repo: strings.Join(parts[:n-2], "/"), kind: parts[n-2], ref: parts[n-1]}
	if len(r.repo) > maxName || !nameForm.MatchString(r.repo) {
		return r, &failure{http.StatusBadRequest, "NAME_INVALID", "malformed name"}
	}
	if ns != "" {
		if !hostForm.MatchString(ns) {
			return r, &failure{http.StatusBadRequest, "NAME_INVALID", "malformed ns"}
		}
		r.repo = strings.ToLower(ns) + "/" + r.repo // as names are kept
	}
	switch r.kind {
	case "manifests":
		tag := len(r.ref) <= maxTag && tagForm.MatchString(r.ref)
		if !tag && digest.Digest(r.ref).Validate() != nil {
			return r, &failure{http.StatusBadRequest, "MANIFEST_INVALID", "neither a tag nor a digest"}
		}
	case "blobs", "referrers":
		if digest.Digest(r.ref).Validate() != nil {
			return r, &failure{http.StatusBadRequest, "DIGEST_INVALID", "malformed digest"}
		}
	case "tags":
		if r.ref != "list" {
			return r, &failure{http.StatusNotFound, "UNSUPPORTED", "no such path"}
		}
	default:
		return r, &failure{http.StatusNotFound, "UNSUPPORTED", "no such path"}
	}
	return r, nil
}

// failure is an error in the form of the specification.
type failure struct {
	status  int
	code    string
	message string
}

func (f *failure) write(w http.ResponseWriter) {
	body, _ := json.Marshal(map[string]any{"errors": []any{map[string]string{"code": f.code, "message": f.message}}})
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(f.status)
	_, _ = w.Write(body)
}

// result is that of a request that ended with f, where nil is none.
func (f *failure) result() Result {
	switch {
	case f == nil:
		return Hit
	case f.status == http.StatusNotFound:
		return Miss
	case f.status < http.StatusInternalServerError:
		return Refused
	}
	return Failed
}

// isPing reports whether a request only asks whether this is a registry.
func isPing(r *http.Request) bool { return r.URL.Path == "/v2/" || r.URL.Path == "/v2" }

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin, to := time.Now(), newPaced(w, r)
	f := m.serve(to, r)
	if f != nil || !isPing(r) {
		m.told(f.result())
	}
	if f != nil {
		f.write(to)
	}
	m.log.Debug("mirror", "method", r.Method, "path", r.URL.Path, "ns", r.URL.Query().Get("ns"),
		"missing", f != nil, "seconds", time.Since(begin).Seconds())
}

// Header is in every answer of a mirror, with the value 1. A mirror has what was pushed to its node, and not what a
// tag names now. So programs that resolve names for others, such as push, must ask the registry itself.
const Header = "X-Dolly-Img-Mirror"

func (m *mirror) serve(w http.ResponseWriter, r *http.Request) *failure {
	w.Header().Set(Header, "1")
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return &failure{http.StatusMethodNotAllowed, "UNSUPPORTED", "this is a read-only mirror"}
	}
	if isPing(r) {
		return sendJSON(w, "application/json", struct{}{})
	}
	q, f := parse(r.URL.Path, r.URL.Query().Get("ns"))
	if f != nil {
		return f
	}
	refs, err := m.repository(q.repo)
	if err != nil {
		m.log.Error("mirror", "error", err)
		return &failure{http.StatusInternalServerError, "UNKNOWN", "the cache cannot be read"}
	}
	served, done := m.held.begin(q.repo)
	defer done()
	if len(refs) == 0 && len(served) == 0 && !q.byDigest() {
		return &failure{http.StatusNotFound, "NAME_UNKNOWN", "not in this cache"}
	}
	switch q.kind {
	case "tags":
		return tags(w, r, q.repo, refs)
	case "referrers":
		return m.referrers(w, r, refs, digest.Digest(q.ref))
	}
	return m.blob(w, r, q, refs, served)
}

// blob serves a manifest or a blob. It also finds, by digest, what was served lately, and what somebody wants.
func (m *mirror) blob(w http.ResponseWriter, r *http.Request, q request, refs []cache.Reference, served []v1.Descriptor) *failure {
	missing := &failure{http.StatusNotFound, "MANIFEST_UNKNOWN", "not in this cache"}
	if q.kind == "blobs" {
		missing.code = "BLOB_UNKNOWN"
	}
	var d v1.Descriptor
	if want := digest.Digest(q.ref); want.Validate() == nil {
		var err error
		if d, err = m.find(q.repo, append(roots(refs), served...), want); err != nil {
			return missing
		}
	} else {
		i := slices.IndexFunc(refs, func(r cache.Reference) bool { return r.Tag == q.ref })
		if i < 0 {
			return missing
		}
		d = refs[i].Root
	}
	isManifest := cache.IsManifest(d.MediaType)
	if q.kind == "manifests" && !isManifest {
		return missing
	}
	if q.kind == "manifests" {
		if err := m.held.add(r.Context(), m.store, q.repo, d); err != nil {
			m.log.Debug("mirror: an image may go while it is read", "manifest", d.Digest, "error", err)
		}
		if err := m.store.Startable(r.Context(), d); err != nil {
			m.log.Warn("mirror: an image is not whole, the registry is asked instead", "manifest", d.Digest, "error", err)
			return missing
		}
	}
	f, err := m.store.OpenVerified(r.Context(), d)
	if err != nil {
		if !errors.Is(err, cache.ErrNotFound) {
			m.log.Warn("mirror", "blob", d.Digest, "error", err)
		}
		return missing // then the runtime asks the registry, which has the right bytes
	}
	defer f.Close()
	h := w.Header()
	h.Set("Docker-Content-Digest", d.Digest.String())
	h.Set("ETag", strconv.Quote(d.Digest.String()))
	h.Set("Content-Type", "application/octet-stream")
	if q.kind == "manifests" {
		h.Set("Content-Type", d.MediaType)
		for _, ref := range refs {
			if ref.Root.Digest == d.Digest {
				m.store.Touch(d.Digest)
				break
			}
		}
	} else {
		if part := r.Header.Get("Range"); r.Method == http.MethodGet {
			m.held.ask(q.repo, d.Digest, part == "" || strings.HasSuffix(part, "-"))
		}
		h.Set("Cache-Control", "max-age=31536000, immutable")
	}
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

// tags lists the tags of a repository, sorted. The parameters n and last select a part of the list.
func tags(w http.ResponseWriter, r *http.Request, repo string, refs []cache.Reference) *failure {
	list := []string{}
	for _, ref := range refs {
		if ref.Tag != "" {
			list = append(list, ref.Tag)
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	q := r.URL.Query()
	if last := q.Get("last"); last != "" {
		i, found := slices.BinarySearch(list, last)
		if found {
			i++
		}
		list = list[i:]
	}
	if s := q.Get("n"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return &failure{http.StatusBadRequest, "UNSUPPORTED", "n is no number"}
		}
		if n < len(list) {
			list = list[:n]
			if n > 0 {
				next := *r.URL
				q.Set("last", list[n-1])
				next.RawQuery = q.Encode()
				w.Header().Set("Link", fmt.Sprintf("<%s>; rel=\"next\"", next.RequestURI()))
			}
		}
	}
	name := repo
	if ns := q.Get("ns"); ns != "" {
		name = strings.TrimPrefix(repo, strings.ToLower(ns)+"/")
	}
	return sendJSON(w, "application/json", map[string]any{"name": name, "tags": list})
}

// referrers lists the manifests whose subject is d.
func (m *mirror) referrers(w http.ResponseWriter, r *http.Request, refs []cache.Reference, d digest.Digest) *failure {
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	kind := r.URL.Query().Get("artifactType")
	seen := map[digest.Digest]bool{}
	for _, ref := range refs {
		if seen[ref.Root.Digest] || !cache.IsManifest(ref.Root.MediaType) {
			continue
		}
		seen[ref.Root.Digest] = true
		f, err := m.store.OpenVerified(r.Context(), ref.Root)
		if err != nil {
			continue
		}
		raw, err := io.ReadAll(io.LimitReader(f, 4<<20))
		f.Close()
		if err != nil {
			continue
		}
		var doc v1.Manifest
		if json.Unmarshal(raw, &doc) != nil || doc.Subject == nil || doc.Subject.Digest != d {
			continue
		}
		e := v1.Descriptor{MediaType: ref.Root.MediaType, Digest: ref.Root.Digest, Size: ref.Root.Size,
			ArtifactType: doc.ArtifactType, Annotations: doc.Annotations}
		if e.ArtifactType == "" {
			e.ArtifactType = doc.Config.MediaType
		}
		if kind == "" || kind == e.ArtifactType {
			index.Manifests = append(index.Manifests, e)
		}
	}
	if kind != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return sendJSON(w, v1.MediaTypeImageIndex, index)
}

func sendJSON(w http.ResponseWriter, mediaType string, v any) *failure {
	b, err := json.Marshal(v)
	if err != nil {
		return &failure{http.StatusInternalServerError, "UNKNOWN", "cannot be encoded"}
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b)
	return nil
}
