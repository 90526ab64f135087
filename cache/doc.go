// Package cache is the node's store of images: a conforming OCI image layout
// that skopeo and podman read as it lies on disk, and beside the layout what is
// needed to fill it safely. It has what a node remembers between transfers. (The way of a
// byte from a socket to a blob is package ring/internal/relay; it ends in a Writer of this package.)
//
//	oci-layout             {"imageLayoutVersion":"1.0.0"}
//	index.json             one descriptor per reference, ref.name in its annotations
//	wishes.json            which digests owners other than this node want here
//	blobs/sha256/<hex>     one blob one file, mode 0444, shared by all images
//
//	leases/<random>        digests that a running transfer needs; flocked while its process lives
//	holds/<random>         the same for an image that is served; its modification time says whether it is being pulled
//	ingest/<lease>.<name>  blobs that are arriving, for the transfer of that lease
//	ingest/<random>        an index.json to come; flocked likewise
//	quarantine/<alg>-<hex> a blob that Verify found wrong, for a week
//	kept/<alg>-<hex>       the first bytes of a blob whose transfer was cut off; the next one claims them
//	parts/<hex>            the path of a part file outside of the cache that a transfer may have left
//	verified/<alg>-<hex>   the blob's inode, size and times when its digest was found right
//	placed/<hex>           the same for a file outside of the cache, with its path
//	layers/<alg>-<hex>     the diff_id of the bytes that a compressed layer unpacks to
//	used/<alg>-<hex>       its modification time is the last use of that manifest
//	lock                   flocked while index.json changes
//	used.sock              where users who may only read tell the daemon what they used
//
// A blob is written to ingest, made durable, and then renamed. The file index.json is
// replaced in one rename, after everything it names is durable. So a power loss at any
// moment leaves a valid layout. Records under verified, placed, layers and used are not
// made durable: a lost or torn record costs time, but never gives a wrong answer.
//
// # Wishes
//
// A digest that somebody wants is not evicted, whether or not a name leads to it, and whether or not it is here yet.
// Each owner says with SetWishes what it wants, as one list that replaces its last one. An owner is a warmer, by the
// name in its certificate, or "local", which is this node. What no owner wants any more is ordinary again: an image with
// a name is evicted when it was not used for longest, and one without goes as what a name has moved away from. SetWishes
// removes nothing itself.
//
// The file wishes.json has one line of JSON, which is replaced in one rename as index.json is, under the same lock. Owners
// are sorted, and the wishes of each by name and digest; a file in any other form is damaged, and then nothing is evicted:
//
//	{"version":1,"owners":{"head1":[{"name":"localhost/a:1","digest":"sha256:…","pin":true,"keep":2}]}}
//
// A wish for a name and a digest keeps that digest. With pin it also keeps what the name leads to, whichever image that
// is. The cache does not count digests of a name: an owner that keeps old ones lists each of them as a wish of its own,
// because only the owner knows when the new one is everywhere. It stores keep, the number that the owner's list says, to
// tell it again.
//
// The wishes of "local" are the pins. They are annotations of the descriptors in index.json (io.github.dolly-img.pin), as in
// caches of earlier versions, because a pin goes with its name to another image in the rename that moves the name.
//
// # Names
//
// The descriptor of a name that a warmer has set says so in another annotation (io.github.dolly-img.owner). A sender may move
// every name. A warmer may move one that a sender has set, its own, and one of another warmer that wants nothing under this
// name any more; else that is a conflict, and the name stays.
//
// # A cache that goes
//
// A daemon whose cache was removed makes it anew, empty, for the next question, wish or transfer. It does so only where the file system of the cache is
// still mounted where it was, since it must not fill the one below; else it says so, and goes on when it is mounted again. A transfer that had begun
// before fails. The wishes of warmers are said again by them, the pins of this node are gone.
//
// # Processes
//
// Several processes may use one cache, and usually they are a daemon that serves
// transfers and a command that lists the cache. A user who may only read can list,
// resolve and verify.
package cache

import (
	"errors"
)

// ErrNotFound is wrapped by the error about a reference or a blob that the cache does not have.
var ErrNotFound = errors.New("not in the cache")
