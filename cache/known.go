package cache

import (
	"context"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// This file has what questions (holds.go) keep for the next ones, so that who asks much costs little: what a manifest references for
// ever, what a record said as long as the blob is the same, and where the blobs are for a second at most, as long as nothing is put
// into a directory or taken out of one.

// known is what earlier questions found out.
type known struct {
	mu            sync.Mutex
	index, wishes stamp // of the two files when the following was read
	images        []v1.Descriptor
	names         map[string]v1.Descriptor
	owned         map[string]string // the warmer whose a name is
	digests       map[digest.Digest][]v1.Descriptor
	keepers       keepers
	// refs has what a manifest references. Its bytes had its digest when it was read. referred is how many references that are.
	refs     map[digest.Digest]references
	referred int
	// right has the blobs of which a record said that they are right, and what the blob and its record looked like then.
	right map[digest.Digest][2]stamp
	// records is what the directory of the records looked like in the last question. A record that is removed changes it.
	records stamp

	lately
}

// lately is what was found out in the last second while shape was the same.
type lately struct {
	shape  [len(places)]stamp
	at     time.Time
	looked map[digest.Digest]blobState
	// summed has State, Bytes, Lacks and Why of a digest.
	summed map[digest.Digest]Holding
	wants  *int64 // bytes that stay because somebody wants them, or nil
	room   *roomFor
}

// places are the files and directories of which one changes with whatever a question looks at, but for the bytes of a blob.
var places = [...]string{"index.json", wishesFile, "blobs", "blobs/sha256", "blobs/sha512", "verified", "quarantine", "leases", "holds"}

// lookedFor is for how long a question trusts what earlier ones have seen.
const lookedFor = time.Second

// racy is how long the time of a directory is too young to tell of its next change, which may come within one tick of the
// clock of the file system.
const racy = time.Second

// maxKnown bounds refs, the references in it, right, looked and summed: each has some 8 MB at most.
const maxKnown = 1 << 15

// references are those in a blob whose bytes have its digest, or why it is no manifest.
type references struct {
	list []v1.Descriptor
	err  error
}

// remember adds to a map of known.
func remember[V any](m *map[digest.Digest]V, d digest.Digest, v V) {
	if *m == nil || len(*m) >= maxKnown {
		*m = map[digest.Digest]V{}
	}
	(*m)[d] = v
}

// question is one call of Holds.
type question struct {
	ctx context.Context
	c   *Cache
	*known
	// still says that no record was removed since the last question.
	still bool
}

// blobState is what a question has found out about a blob.
type blobState struct {
	size  int64 // -1: not here
	right bool  // whether a record says that it is right
}

// refresh forgets what may not be so any more, and reads index.json and wishes.json, if they have changed.
func (q *question) refresh() error {
	now, calm := q.placesNow()
	index, wishes, records := now[0], now[1], now[5]
	q.still = records != (stamp{}) && records == q.records
	if q.records = records; !calm {
		q.records = stamp{}
	}
	if !calm || now != q.shape || time.Since(q.at) >= lookedFor {
		q.lately = lately{shape: now, at: time.Now()}
	}
	if q.names != nil && index == q.index && wishes == q.wishes {
		return nil
	}
	w, err := q.c.readWishes()
	if err != nil {
		return err
	}
	list, err := q.c.readIndex()
	if err != nil {
		return err
	}
	q.index, q.wishes, q.keepers, q.images = index, wishes, w.keepers(), list.Manifests
	q.names, q.owned, q.digests = map[string]v1.Descriptor{}, map[string]string{}, map[digest.Digest][]v1.Descriptor{}
	for _, d := range q.images {
		if ref := refName(d); ref != "" && q.names[ref].Digest == "" { // the first one counts, as in Resolve
			q.names[ref] = d
			if owner := w.nameOwner(d); owner != "" {
				q.owned[ref] = owner
			}
		}
		q.digests[d.Digest] = append(q.digests[d.Digest], d)
	}
	return nil
}

// placesNow returns what the places look like, and whether none has changed so lately that its next change might not show.
func (q *question) placesNow() (now [len(places)]stamp, calm bool) {
	calm = true
	for i, place := range places {
		info, err := q.c.fs.Lstat(place)
		if err != nil {
			continue
		}
		now[i] = stampOf(info)
		if age := time.Since(info.ModTime()); age < racy {
			calm = false
		}
	}
	return now, calm
}

// wanted returns how many bytes are here that stay because somebody wants them.
func (q *question) wanted() (bytes int64, err error) {
	if q.wants != nil {
		return *q.wants, nil
	}
	counted := map[digest.Digest]bool{}
	count := func(d v1.Descriptor) {
		if size := q.look(d.Digest).size; size > 0 && !counted[d.Digest] {
			counted[d.Digest] = true
			bytes += size
		}
	}
	for _, d := range q.images {
		if len(q.keepers.of(d)) > 0 {
			_ = q.walk(d.Digest, count) // what cannot be read is counted as far as it is known
		}
	}
	for _, d := range q.keepers.roots {
		_ = q.walk(d.Digest, count)
	}
	if err := q.ctx.Err(); err != nil {
		return 0, err
	}
	q.wants = &bytes
	return bytes, nil
}

// roomFor is for how many bytes there is room with some limits.
type roomFor struct {
	limits Limits
	// total is how many bytes all blobs have, and stays how many of them would be left if everything went that may.
	total, stays int64
}

// free returns how many bytes the cache could take.
func (q *question) free(limits Limits) (int64, error) {
	if limits == (Limits{}) {
		return q.c.free()
	}
	if q.room == nil || q.room.limits != limits {
		g, err := q.c.newCollectorBy(q.ctx, GCOptions{Limits: limits}, func(root v1.Descriptor) (list []v1.Descriptor, _ error) {
			_ = q.walk(root.Digest, func(d v1.Descriptor) { list = append(list, d) })
			return list, nil // an image that cannot be read in full is counted as far as it is known
		})
		if err == nil {
			g.leased, err = q.c.leasedIn("leases") // a transfer that lacks room ends holds
		}
		if err != nil {
			return -1, err
		}
		q.room = &roomFor{limits, g.total, g.staying(g.victims())}
	}
	room, known, err := q.c.roomOf(q.room.total, q.room.stays, limits)
	if !known || err != nil {
		return -1, err
	}
	return max(0, room), nil
}
