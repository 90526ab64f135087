package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// A user who may only read the cache cannot record that an image was used. His command tells the
// daemon, over a datagram socket in the cache directory, in one message:
//
//	used sha256:<hex>\n
//
// The daemon does not answer. It only sets the time in used/ of an image that index.json
// names, at most once a minute for each image. So nobody can fill the disk with messages,
// make the daemon change something else, or take more of its time than usesPerSecond.

const (
	usesSocket    = "used.sock"
	usePrefix     = "used "
	maxUse        = 256 // bytes of a message
	useAgain      = time.Minute
	usesPerSecond = 50
	useTimeout    = 100 * time.Millisecond // how long a user waits for room in the daemon's queue
)

func encodeUse(d digest.Digest) []byte { return []byte(usePrefix + d.String() + "\n") }

// decodeUse accepts only what encodeUse writes.
func decodeUse(b []byte) (digest.Digest, error) {
	if len(b) > maxUse {
		return "", fmt.Errorf("use: more than %d bytes", maxUse)
	}
	s, ok := strings.CutPrefix(string(b), usePrefix)
	if !ok {
		return "", errors.New("use: unknown message")
	}
	d := digest.Digest(strings.TrimSuffix(s, "\n"))
	if err := validate(d); err != nil {
		return "", fmt.Errorf("use: %w", err)
	}
	if !bytes.Equal(encodeUse(d), b) {
		return "", errors.New("use: not in its canonical form")
	}
	return d, nil
}

// socketAddr returns the address of the socket through an open directory, because the path may
// be longer than an address can be. The address is good until done is called.
func (c *Cache) socketAddr() (addr *net.UnixAddr, done func(), err error) {
	fd, err := unix.Open(c.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return &net.UnixAddr{Net: "unixgram", Name: fmt.Sprintf("/proc/self/fd/%d/%s", fd, usesSocket)}, func() { unix.Close(fd) }, nil
}

// tellUse asks the daemon to record a use. If there is no daemon, or it is busy, the use
// is not recorded. That may cost another push and is no failure.
func (c *Cache) tellUse(d digest.Digest) {
	addr, done, err := c.socketAddr()
	if err != nil {
		return
	}
	defer done()
	conn, err := net.DialUnix("unixgram", nil, addr)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(useTimeout))
	_, _ = conn.Write(encodeUse(d))
}

// ServeUses records the uses that other users of this machine report, until ctx ends. It
// returns once it listens. Everybody who may read the cache may report. A daemon that
// starts later takes the socket over.
func (c *Cache) ServeUses(ctx context.Context) error {
	conn, err := c.listenUses()
	if err != nil {
		return fmt.Errorf("cache %s: %s: %w", c.dir, usesSocket, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	go func() {
		defer stop()
		defer conn.Close()
		u := uses{c: c, noted: map[digest.Digest]time.Time{}}
		limit := rate.NewLimiter(usesPerSecond, usesPerSecond)
		message := make([]byte, maxUse+1)
		for limit.Wait(ctx) == nil {
			n, err := conn.Read(message)
			if err != nil {
				return
			}
			if d, err := decodeUse(message[:n]); err == nil {
				u.note(d)
			}
		}
	}()
	return nil
}

func (c *Cache) listenUses() (*net.UnixConn, error) {
	addr, done, err := c.socketAddr()
	if err != nil {
		return nil, err
	}
	defer done()
	// The socket of a daemon that was killed would be in the way.
	if info, err := c.fs.Lstat(usesSocket); err == nil && info.Mode().Type() == fs.ModeSocket {
		if err := c.fs.Remove(usesSocket); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	conn, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		return nil, err
	}
	if err := c.access.Socket(addr.Name); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// uses keeps what is needed to record a use without reading much.
type uses struct {
	c     *Cache
	index stamp // of index.json when held was read
	held  map[digest.Digest]bool
	noted map[digest.Digest]time.Time // when a use of each image was recorded last
}

// note records a use of d, if that is an image of this cache.
func (u *uses) note(d digest.Digest) {
	info, err := u.c.fs.Lstat("index.json")
	if err != nil {
		return
	}
	if now := stampOf(info); u.held == nil || now != u.index {
		index, err := u.c.readIndex()
		if err != nil {
			return
		}
		u.index, u.held = now, map[digest.Digest]bool{}
		for _, m := range index.Manifests {
			u.held[m.Digest] = true
		}
		for d := range u.noted {
			if !u.held[d] {
				delete(u.noted, d)
			}
		}
	}
	if u.held[d] && time.Since(u.noted[d]) >= useAgain {
		u.noted[d] = time.Now()
		_ = u.c.stampUse(d)
	}
}
