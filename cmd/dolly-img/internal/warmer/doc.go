// Package warmer is what package cache/warm needs to keep nodes warm: it joins the controller to registries, to nodes and to this
// machine's own cache.
//
// Effects is the door. Its methods are in files of their own: Lookup (lookup.go) asks registries and files what an image is now, Ask
// (ask.go) asks nodes what they hold and tells them what to keep, Push (push.go) sends an image from the own cache, and
// Keep (keep.go) has that cache keep what is listed. A Socket (socket.go) tells others on this machine what the controller
// knows, and FetchSnapshot asks it.
//
// An image comes into the own cache once, while it is pushed for the first time, and each later push reads it there. So a registry
// is asked once for each digest, and nodes get what they lack while the registry is away.
//
// The package knows keys, registries, the cache and the ring. It knows no flags and prints nothing.
package warmer
