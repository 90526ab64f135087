package meta

// Target is what a node says of the device that a transfer would overwrite, for the plan that somebody confirms.
type Target struct {
	// Path is below /dev, and Number major and minor number. DiskSeq never comes twice before the node's next boot; 0 is
	// unknown.
	Path    string `json:"path"`
	Number  string `json:"number"`
	DiskSeq uint64 `json:"diskSeq,omitempty"`
	// Kind is as package disk has it.
	Kind   string `json:"kind"`
	Model  string `json:"model,omitempty"`
	Serial string `json:"serial,omitempty"`
	WWN    string `json:"wwn,omitempty"`
	// Size and Sector, of a logical sector, are in bytes.
	Size   int64 `json:"size"`
	Sector int64 `json:"sector"`
	// Holds are the formats of which something is there.
	Holds []string `json:"holds,omitempty"`
}
