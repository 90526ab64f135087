package wire

// TargetState is what a target is that is overwritten for good, in a REPORT.
type TargetState string

// These are the states of a target.
const (
	TargetUntouched   TargetState = "untouched"
	TargetOverwritten TargetState = "overwritten"
	TargetComplete    TargetState = "complete"
	TargetUnknown     TargetState = "unknown"
)
