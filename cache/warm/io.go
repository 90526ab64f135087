package warm

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Now is the time of a step.
type Now struct {
	// Since is how long the controller runs, by a clock that only goes forward.
	Since time.Duration
	// Wall is what the clock on the wall shows. It may jump.
	Wall time.Time
}

// An Event is what has happened.
type Event interface{ event() }

// Events. After each action but ActRate, ActStop, ActSave and ActKeep there is exactly one event with its result.
type (
	// EvTick lets time pass. It comes about once a second.
	EvTick struct{}
	// EvList is a list to go by, from now on. What had failed is tried again.
	EvList struct{ List *List }
	// EvRefused is a list that is wrong.
	EvRefused struct{ Why string }
	// EvNodes answers ActNodes. Why is "" unless it failed.
	EvNodes struct {
		Group string
		Names []string
		Why   string
	}
	// EvFound answers ActLookup.
	EvFound struct {
		Lookup Lookup
		Tags   []Tag
		Why    string        // "" unless it failed
		Wait   time.Duration // for how long the registry does not want to be asked; 0 if it does not say
		Sure   bool          // it failed in a way that the same question soon changes nothing about
	}
	// EvAnswer is what one node says to the Query of an ActAsk. Why is "" unless it does not answer or, where Failed says so, answers that
	// it does not tell, or was not asked for a failure here.
	EvAnswer struct {
		Query  *Query
		Answer Answer
		Why    string
		Failed bool
	}
	// EvProgress says how far a push is.
	EvProgress struct {
		Push int
		Progress
	}
	// EvPushed answers ActPush. Rows has one for each node. Why says that the source failed; what Rows say is true nevertheless.
	EvPushed struct {
		Push int
		Rows []Row
		Why  string
	}
	// EvSaved answers ActSave and ActKeep where one failed, or worked again. What failed is done again after saveEvery.
	EvSaved struct{ Why string }
)

func (EvTick) event()     {}
func (EvList) event()     {}
func (EvRefused) event()  {}
func (EvNodes) event()    {}
func (EvFound) event()    {}
func (EvAnswer) event()   {}
func (EvProgress) event() {}
func (EvPushed) event()   {}
func (EvSaved) event()    {}

// An Action is what is to be done.
type Action interface{ action() }

// Actions.
type (
	// ActNodes reads the list of a group again.
	ActNodes struct{ Group Group }
	// ActLookup asks what a Ref is.
	ActLookup struct{ Lookup Lookup }
	// ActAsk asks nodes beside each other.
	ActAsk struct{ Queries []*Query }
	// ActPush begins a ring.
	ActPush struct{ Push Push }
	// ActRate changes the rate of one, in bytes per second. 0 is no limit.
	ActRate struct {
		Push int
		Rate int64
	}
	// ActStop interrupts one. Its nodes keep what they have.
	ActStop struct{ Push int }
	// ActSave replaces the state that is kept.
	ActSave struct{ State *State }
	// ActKeep replaces this owner's wishes in the cache of the controller itself.
	ActKeep struct{ Wishes []Wish }
)

func (ActNodes) action()  {}
func (ActLookup) action() {}
func (ActAsk) action()    {}
func (ActPush) action()   {}
func (ActRate) action()   {}
func (ActStop) action()   {}
func (ActSave) action()   {}
func (ActKeep) action()   {}

// A Lookup asks what an entry of the list stands for now.
type Lookup struct {
	Image Image
	// Platforms are those of its groups, each once. "" is that of the controller.
	Platforms []string
	// Known has the digests of tags that were found before. Where a tag still has its digest, nothing more needs to be asked: the Tag
	// may be returned without Variants.
	Known map[string]digest.Digest
}

// A Tag is what a Ref was found to be.
type Tag struct {
	// Ref is that of the Lookup, with the tag where Image.Tags was given.
	Ref string
	// List is the digest that the registry has for the tag. For an image of several platforms it is that of their list.
	List digest.Digest
	// Variants has one for each platform that there is.
	Variants []Found
	// Why says why this one of several tags could not be looked up, though the others could. What is known of it stands then. "" is that it could.
	Why string
}

// Found is an image of one platform.
type Found struct {
	Platform string
	// Name is the reference in the caches.
	Name   string
	Digest digest.Digest
	Bytes  int64
}

// A Query is for one node.
type Query struct {
	Node string
	// Wishes replace what this owner wished of the node before. nil leaves that alone.
	Wishes []Wish
	Images []Question
}

// A Question is whether a node holds a digest, and whether a name leads to it.
type Question struct {
	Name   string
	Digest digest.Digest
}

// A Wish asks a cache not to evict a digest.
type Wish struct {
	Name   string
	Digest digest.Digest
	Pin    bool
	Keep   int
}

// An Answer is what a node says to a Query.
type Answer struct {
	// Room is how many bytes this owner's images could still take: what is free and what others could leave. -1 is not known.
	Room int64
	// Wanted is how many bytes stay because an owner wants them.
	Wanted int64
	// Most is how many bytes the cache may have at all. 0 is no limit.
	Most int64
	// Images has one for each Question, in the same order.
	Images []Holding
}

// Holding is what a node says of one image.
type Holding struct {
	// Lacks is how many bytes are missing. 0 is all there, -1 is missing, and how many is not known.
	Lacks int64
	// Named is the digest that the name leads to. "" is none.
	Named digest.Digest
	// Conflict says whom the name belongs to, if this owner must not have it lead to the digest. "" is that it may.
	Conflict string
}

// A Push is a ring to begin.
type Push struct {
	ID       int
	Ref      string
	Platform string
	Name     string
	Digest   digest.Digest
	AuthFile string
	Rate     int64 // bytes per second, 0 is no limit
	Nodes    []string
	// Back are those of Nodes where the name leads to an image that is no earlier one of it: somebody else has moved it.
	Back []string
}

// Progress is how far a push is.
type Progress struct {
	Rate int64         // bytes per second
	Left time.Duration // 0 is not known
	Done int           // nodes that have all bytes
}

// Outcome is what became of a push to a node.
type Outcome int

// Outcomes.
const (
	// Failed is any failure that is none of the others.
	Failed Outcome = iota
	// Committed nodes hold the digest under its name, also those that held it before.
	Committed
	// Unreachable nodes did not answer, or no longer.
	Unreachable
	// Full nodes lack the room.
	Full
	// Conflict is a name that belongs to another owner.
	Conflict
	// Interrupted is by ActStop, or because the source failed.
	Interrupted
)

// A Row is what became of a push to a node.
type Row struct {
	Node    string
	Outcome Outcome
	Why     string
	// Needs is how many bytes a Full node needs. 0 is not known.
	Needs int64
}
