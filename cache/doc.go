// Package cache is the node's store of images: a conforming OCI image layout
// that skopeo and podman read as it lies on disk, and beside the layout what is
// needed to fill it safely. It has what a node remembers between transfers. (The way of a
// byte from a socket to a blob is package ring/internal/relay; it ends in a Writer of this package.)
//
//	oci-layout             {"imageLayoutVersion":"1.0.0"}
//	index.json             one descriptor per reference, ref.name in its annotations
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
// Several processes may use one cache, and usually they are a daemon that serves
// transfers and a command that lists the cache. A user who may only read can list,
// resolve and verify.
package cache

import (
	"errors"
)

// ErrNotFound is wrapped by the error about a reference or a blob that the cache does not have.
var ErrNotFound = errors.New("not in the cache")
