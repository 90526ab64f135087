package coordinator

// holdings is what a node holds before it receives, as its ANSWER says.
//
// held and claims have an entry for each blob once it has answered, and are nil before. A blob has a claim
// only where it is not held. Claims only shrink, when a mark shows them wrong.
type holdings struct {
	held    []int64 // per blob its size if the node vouches for it, else -1
	claims  []int64 // per blob the leading bytes it claims, in whole marks
	lacks   bool    // some blob: it takes part in the chain
	replays bool    // it can read back what it stored
	change  bool    // it holds everything, and has something to switch
	known   bool    // it has answered an offer
	first   int64   // bytes it said to hold when it first did
	lost    int64   // bytes it received before it was lost
}
