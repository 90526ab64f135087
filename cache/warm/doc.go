// Package warm keeps images warm: it sees to it that every node of a list holds every image of a list, under its name,
// and it can say at any time which do not, and why.
//
// A List is a file that people keep in git (Parse). Machine decides what is done, and when. It is a pure state machine:
// Machine.Step takes the time and an event and returns actions, it does no I/O and knows no other clock. Run drives it
// with the effects that a Config gives: a registry, nodes that can be asked, and a ring that pushes.
//
// # What it promises
//
//   - A node that answers and lacks an image has it at most one catch-up and the transfer later, unless the windows are
//     closed, all rings are busy, or a push to this node failed since it came back.
//   - A tag that moved is on all nodes that answer after every and the transfer.
//   - The digest that a name leads to on a node stays wanted there until the node holds the new one. Nothing is deleted.
//   - Nothing is pushed to a node that said it holds it.
//   - No failure is tried again in a loop: each is tried after retry's least time at first, and then after twice as long
//     each time, up to retry's longest.
//   - What is warm was said by the node itself: it holds every blob of this digest, and the name leads to it.
//   - A wrong list, an empty list of nodes, and a registry that does not answer change nothing: the last good one stands, and
//     the status says since when it is stale.
//
// # Rounds
//
// Every catch-up there is a round, and one sooner if a digest is new. A round reads the lists of nodes again, then asks
// every listed node what it holds of the images that it is to hold, and then plans rings. It goes on
// without the nodes that are silent for askWithin, which are away from then on, and for awayWithin if they were away before. Nodes that
// came in the time of one catch-up are so gathered into one ring for each image.
//
// With the question a node gets this controller's wishes: the digest of each of its images, older digests that are kept,
// and the digests that its names lead to as long as it lacks the new ones, unless such a name belongs to another owner. A controller that has just begun does not know the last.
// Therefore a node's first question carries no wishes, and they go in a second one within the same round. No
// digest is pushed to a node that has not got the wish for it, since the node might evict it at once. Wishes replace earlier ones. So where
// there is no state, and the node says that something in it is wanted, it gets none as long as one of its entries was never found: an earlier controller may
// have found it, and which digest that was is not known. The others wait for it for doubtFor at most, and not after triesAlone failures, or after one
// that is for sure: there is no such tag, or the login is refused. That is asked for again after every. A saved state that is older than every
// may be of a time when the state could not be saved. So its digests count when
// the registry has been asked, or does not answer. A node that is not listed any more keeps the wishes that it has.
//
// A node that answered and then did not, flapsAfter times without an hour of answers between them, flaps. It is asked again only
// after retry's times, and a push to it that failed is not forgotten when it comes back, as it is for others.
//
// # Digests
//
// A tag is asked for every so often, with a tenth of jitter, and at most lookups at once, of which lookupsOf are of one registry, since that may be away, and one of it and last when it took silentFrom to fail. When a registry says for how long it
// does not want to be asked, no image of this registry is asked for until then. A tag may stand for several images, one
// for each platform; nodes hold that of their group's platform. Of a pattern of tags, one that cannot be looked up does not
// concern the others. When it leads to a new digest, the old one goes to the front of the
// older ones. They stay wanted as long as keep has room for them, and the last of them until the new one is warm on every node that
// it can be on: those that answer and are not blocked by their own state (full, failed, conflict). Those before it are wanted only
// where a name leads to them still: two digests, and what keep says, is the room that an image needs.
//
// # Rings
//
// A ring pushes one digest to those who lack it or whose name leads elsewhere. Images of a higher priority go first, of the same priority
// that which was not pushed for longest, and so many rings as the list says run at once. A ring that runs when its image's digest moves is not stopped: who moves a tag faster than
// it can be pushed would have no warm node ever. A ring whose image is not listed any more is stopped.
// Outside of the windows rings run at the rate of outside. If that is "off", running ones are interrupted: nodes keep
// what they have, and nobody failed.
//
// After a push a node is warm if it said so. A node whose answer says that the name belongs to another owner is in conflict, and one whose answer
// proves that it has no room is full: what is lacking is more than the room, or the image is longer than the cache may be. Neither is pushed to until an answer says
// something else. An answer need not prove anything, since a node without the manifest does not know what it would share with other
// images, and a name may be given away meanwhile. So a push can find the same. A node that it found full is tried again when it says
// that it has more room, or when the digest has moved. When the source fails, the image is blocked, the failure is nobody else's, and it is tried again after retry's times.
//
// # States
//
// Of an image (ImageState): warm, from min of its nodes on; warming, while a ring runs or can run; degraded, when fewer
// are warm and nothing can be done for the others now; blocked, when nothing can be done at all, with the reason. Any of them can
// be stale: the registry, or a list of nodes, has not answered since. Of a node and an image (NodeState): warm, warming, behind
// (the name leads to another digest), missing, full, failed (a push to it did, it answers and does not tell what it holds, or it cannot have the
// image beside others of the list: one has the same name, or they are too many), conflict,
// away (nothing answers), and unknown before its first answer.
//
// # What is kept
//
// The file of the state is JSON with the digests of each tag by platform, the older ones, the last success and the next try. It is replaced
// in one step (durable.Replace). Without it, all but the older digests is found again by asking. It has no names of
// nodes, no credentials and no paths of files with credentials.
//
//	{"version":1,
//	 "images":[{"ref":"docker://registry.example/ml/torch:25.10",
//	            "list":"sha256:…",                        digest that the tag itself has
//	            "found":"2026-11-29T20:00:00Z",           last success of asking for it
//	            "next":"2026-11-29T20:10:00Z",            when it is asked for again
//	            "variants":[{"platform":"linux/amd64","name":"…","digest":"sha256:…","bytes":123,
//	                         "older":["sha256:…"],        newest first, at most maxOlder
//	                         "warm":"2026-11-29T20:03:00Z"}]}]}    when it was last warm
//
// Times in it are of the wall clock. A time that is further ahead than the settings allow, because a clock jumped, is brought back to what
// they allow. All other intervals are of a clock that only goes forward.
//
// # What is told
//
// A Snapshot is told to other programs as one JSON document (Encode, ParseSnapshot). What is empty, zero or unknown is left out, but for
// "groups", "images", "nodes" of an image, and "warm". A reader refuses what it does not know, so every change of the form is a new version. It has
// no credentials, no paths of files with credentials, no text of commands and of what they say, and no values of a list that is refused: these are in the log.
//
//	{"version":1,
//	 "at":"2026-11-29T20:05:00Z",                      when all of it was so
//	 "refused":"line 7: unknown key \"nods\"",         why the list does not count, without its values, and since when
//	 "refused_since":"2026-11-29T20:01:00Z",
//	 "trouble":"no space left on device",              why the state is not kept, and since when
//	 "trouble_since":"2026-11-29T20:01:00Z",
//	 "groups":[{"name":"gpu","nodes":128,
//	            "stale":"exit status 1",               why the list of nodes is not read again, and since when
//	            "since":"2026-11-29T20:04:00Z"}],
//	 "images":[{"ref":"docker://registry.example/ml/torch:25.10",
//	            "platform":"linux/amd64",              without platform, name and digest where nothing was found
//	            "name":"registry.example/ml/torch:25.10",
//	            "digest":"sha256:…",
//	            "state":"warming",                     warm, warming, degraded or blocked
//	            "reason":"…",                          of degraded and blocked
//	            "warm":126,                            how many of the nodes are
//	            "nodes":[{"node":"gpu017",             in the order of the list, those that cannot have it beside other images last
//	                      "state":"failed",            warm, warming, behind, missing, full, failed, conflict, away or unknown
//	                      "reason":"…",
//	                      "behind":"sha256:…",         the digest that the name leads to, if that is another one
//	                      "since":"2026-11-29T09:12:00Z",    away since, or does not tell what it holds since
//	                      "next":"2026-11-29T20:07:00Z"}],   next try; none of a full node before it has more room
//	            "rate":112000000,                      bytes per second of the rings that run
//	            "left_ns":180000000000,                nanoseconds that they still take
//	            "stale":"…",                           why the digest cannot be asked for, and since when
//	            "since":"2026-11-29T19:00:00Z",
//	            "found":"2026-11-29T18:50:00Z",        last success of asking for it
//	            "next":"2026-11-29T20:10:00Z",         when it is asked for again
//	            "last_warm":"2026-11-29T20:03:00Z"}]}
package warm
