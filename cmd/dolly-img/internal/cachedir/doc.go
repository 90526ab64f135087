// Package cachedir knows where the caches of this machine are: that of root and its daemon, that of a systemd unit, and
// those of users. Open is for commands that only look, Create for a server that keeps what it pulls.
package cachedir
