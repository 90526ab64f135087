// Package relay moves the bytes of one transfer through one process: from the link that feeds a node, or
// from the server's source, into the window, to the store and to the links that the process feeds. It
// decides nothing: package ring tells it what arrives, whom to feed, and when to fall back.
//
// # Where does a byte go?
//
//	feeder's socket              the server's source
//	      | LowConn, LinkReader        | Pump, frameSize
//	      v Receive                    v
//	      +------ reserve -------------+   memory of the window
//	      |       read, check the CRC
//	      +------ put ---------------------------+
//	      |                                      |
//	      v window: the newest frames            v live links: at once, by the same goroutine
//	      |                                      plainWriter, tlsWriter -> next node's socket
//	      +--> Store.write: Writer -> disk ------+
//	      |                                      v ledger: what both have passed -> Sum, marks
//	      +--> hasher, one for each blob --------+
//	      |
//	      +--> outLink.catchUp: a link that is behind, from the window,
//	           or through an Opener from what was stored -> next node's socket
//
// # Which goroutine does what
//
//   - The producer is one goroutine: Receive on a node, Pump.Run on the server. It takes memory from the
//     window, reads a frame into it, and checks or makes the CRC. Then it writes the frame to each link that
//     is at the head, and only then it reads the next. It waits in reserve while the store or a link still
//     needs the oldest frame.
//   - The store has one writer, which writes all blobs one after the other, and one hasher for each of a few
//     blobs. Writer and hashers take the same frames, each with a taker of its own. A frame stays in the
//     window until its writer and its hasher are done with it.
//   - Each link has one goroutine, which Feed starts. It dials, and sends what the link lacks until the
//     link is at the head. Then it sleeps, and the producer writes.
//
// # Who owns which offset
//
//   - relayBlob.recv belongs to the producer: the next frame that it puts begins there. Arrive and FallBack
//     set it while there is no producer, to what the node's machine (package member) has accepted.
//   - outLink.pos belongs to whoever writes to the link, one goroutine at a time.
//   - taker.off belongs to the writer or hasher that has the taker. The writer's begins at what Store.At
//     says. The hasher's begins before it, where some bytes were there before the transfer.
//   - ledger.written is how far the writer is. Sum gets no sum of bytes beyond it.
//
// # Zeros
//
// In blobs in leaves the producer of the server looks for runs of zeros. Such a run is a frame without data, which takes no
// memory of the window. A link writes it as a header (ZERO), or as bytes where the other end knows no ZERO, or was promised
// bytes. What begins a leaf with zeros is not hashed: the hash of so many zeros is known.
//
// # Where is what?
//
//	relay.go                           the meeting of all of these
//	receive.go, pump.go, framesize.go  the producers
//	pump_leaves.go, zeros.go           runs of zeros, which travel without their bytes
//	store.go, taker.go                 the store
//	sums.go                            from where hashes go on after a fallback
//	sha.go                             whether the processor has instructions for them
//	link.go, lowat.go                  the two ends of a link
//	link_out.go                        the links that are fed
//	window.go                          the memory
//	meter.go, link_info.go, rundelay.go  what is measured
package relay
