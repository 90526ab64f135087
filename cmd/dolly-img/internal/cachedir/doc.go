// Package cachedir knows where the caches of this machine are: that of root and its daemon, that of a systemd unit, and
// those of users. Commands that only look call Open, and a server that keeps what it pulls calls Create.
package cachedir
