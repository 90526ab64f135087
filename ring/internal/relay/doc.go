// Package relay moves the bytes of one transfer through one process: from the link that feeds a node, or
// from the server's source, into the window, to the store and to the links that the process feeds.
package relay
