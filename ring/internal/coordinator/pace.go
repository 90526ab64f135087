package coordinator

// pace is what a node could carry, and whether it is called slow because of that.
//
// A node that is slow stands at the end of the order and feeds nobody. rate, why and link tell of the last
// time it was called slow. seen counts only while slow is false. Of all nodes at most one has seen > 0.
type pace struct {
	could   int64 // bytes per second it could carry when it was last known
	carried int64 // of it the link into it, at its best while it was busy; a little less with each second
	burst   int64 // what passed over that link in moments, when it was mostly idle

	slow    bool   // it is served at the end of the order, and feeds nobody
	seen    int    // looks in a row that say so
	unsure  bool   // the last of them says so of whom it feeds
	rate    int64  // bytes per second because of which it was called slow
	why     string // why it was called slow, and the row's link then
	link    string
	cleared int   // times it was called slow and turned out not to be
	sends   int64 // bytes per second, where it was called slow because of what it sends
	slowed  int   // whom it feeds was called slow, because of the link from it; 0: nobody
}
