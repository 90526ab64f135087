package wire

// Wait is what a node, or its store, spent most of the last second on, in a REPORT.
type Wait string

// The values of Wait. A receiver takes any other for WaitUnknown.
const (
	WaitUnknown Wait = ""      // no one thing took more than half of the time
	WaitCPU     Wait = "cpu"   // it waited for nothing: it worked
	WaitIn      Wait = "in"    // for its feed
	WaitDisk    Wait = "disk"  // for the storage
	WaitLimit   Wait = "limit" // for a limit on the rate
	WaitOut     Wait = "out"   // for those it feeds
	WaitBusy    Wait = "busy"  // before the ANSWER: for another transfer to end
)

// OrUnknown is w, or WaitUnknown where w is none of the values above.
func (w Wait) OrUnknown() Wait {
	switch w {
	case WaitCPU, WaitIn, WaitDisk, WaitLimit, WaitOut, WaitBusy:
		return w
	}
	return WaitUnknown
}
