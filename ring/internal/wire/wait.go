package wire

// Wait is what a node, or its store, spent most of the last second on. A REPORT has it.
type Wait string

// These are the values of Wait. A receiver takes any other for WaitUnknown.
const (
	WaitUnknown Wait = ""      // nothing took more than half of the time
	WaitCPU     Wait = "cpu"   // the node worked, and waited for nothing
	WaitIn      Wait = "in"    // the node waited for its feed
	WaitDisk    Wait = "disk"  // the node waited for its storage
	WaitLimit   Wait = "limit" // the node waited because of a limit on the rate
	WaitOut     Wait = "out"   // the node waited for those that it feeds
	WaitBusy    Wait = "busy"  // the node waits, before its ANSWER, for another transfer to end
)

// OrUnknown returns w, or WaitUnknown if w is none of the values above.
func (w Wait) OrUnknown() Wait {
	switch w {
	case WaitCPU, WaitIn, WaitDisk, WaitLimit, WaitOut, WaitBusy:
		return w
	}
	return WaitUnknown
}
