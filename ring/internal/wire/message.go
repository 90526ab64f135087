package wire

import (
	"encoding/json"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Message is one of the control messages below.
type Message interface{ kind() byte }

// These are the control messages of PROTOCOL.md section 4, with the numbers of their types.
type (
	Hello struct { // 1
		Min      int    `json:"min"`
		Max      int    `json:"max"`
		Transfer ID     `json:"transfer"`
		Node     string `json:"node"`
		Resume   bool   `json:"resume"`
	}
	Welcome struct { // 2
		Version  int    `json:"version"`
		Instance ID     `json:"instance"`
		State    string `json:"state"`
		Digest   string `json:"digest"`
		Reason   string `json:"reason"`

		// Software and Platform exist since version 2. They are empty in a WELCOME of version 0 or 1.
		Software string `json:"software,omitempty"`
		Platform string `json:"platform,omitempty"`

		// NoSHA exists since version 3, and is false before.
		NoSHA bool `json:"noSHA,omitempty"`
	}
	Offer struct { // 3
		Blobs []v1.Descriptor `json:"blobs"`
		Meta  json.RawMessage `json:"meta"`
		Plain bool            `json:"plain"`
	}
	Answer struct { // 4
		Held   []int64 `json:"held"`
		Free   int64   `json:"free"`
		Replay bool    `json:"replay"`
		Switch bool    `json:"switch"`
		Code   Code    `json:"code"`
		Reason string  `json:"reason"`

		// Leaves and Target exist since version 6, and are empty before.
		Leaves []Leaves        `json:"leaves,omitempty"`
		Target json.RawMessage `json:"target,omitempty"`
	}
	Start struct { // 5
		// Target exists since version 6, and is empty before.
		Target json.RawMessage `json:"target,omitempty"`
	}
	Feed struct { // 6
		Link       uint32   `json:"link"`
		Generation uint32   `json:"generation"`
		Secret     []byte   `json:"secret"`
		From       string   `json:"from"`
		Addrs      []string `json:"addrs"`
	}
	Need struct { // 7
		Link       uint32     `json:"link"`
		Generation uint32     `json:"generation"`
		Needs      [][2]int64 `json:"needs"` // blob, offset

		// Leaves exists since version 6, and is empty before.
		Leaves []Leaves `json:"leaves,omitempty"`
	}
	Dial struct { // 8
		Link       uint32     `json:"link"`
		Generation uint32     `json:"generation"`
		Secret     []byte     `json:"secret"`
		Name       string     `json:"name"`
		Addrs      []string   `json:"addrs"`
		Needs      [][2]int64 `json:"needs"`
		Lag        bool       `json:"lag"`
		Padded     bool       `json:"padded,omitempty"`

		// Leaves and Zeros exist since version 6, and are empty before.
		Leaves []Leaves `json:"leaves,omitempty"`
		Zeros  bool     `json:"zeros,omitempty"`
	}
	Link struct { // 9
		Link       uint32 `json:"link"`
		Generation uint32 `json:"generation"`
		State      string `json:"state"`
		Code       Code   `json:"code"`
		Reason     string `json:"reason"`
	}
	Undial struct { // 10
		Link uint32 `json:"link"`
	}
	Marks struct { // 11
		Marks []Mark `json:"marks"`
	}
	Report struct { // 12
		Received int64     `json:"received"`
		Marked   int64     `json:"marked"`
		Durable  int64     `json:"durable"`
		Wait     Wait      `json:"wait"`
		Blob     int       `json:"blob"` // all that the node lacked before byte Good of this blob is right
		Good     int64     `json:"good"`
		Relay    int64     `json:"relay"` // bytes per second, as the next two; 0 is unknown
		Hash     int64     `json:"hash"`
		Disk     int64     `json:"disk"`
		Links    []Sending `json:"links"`

		// Checked and Zeros exist since version 6, and are 0 before. Zeros is how many of the bytes received came as ZERO.
		Checked int64 `json:"checked,omitempty"`
		Zeros   int64 `json:"zeros,omitempty"`
		// Target exists since version 6, and is empty before.
		Target TargetState `json:"target,omitempty"`
	}
	Fail struct { // 13
		Code   Code   `json:"code"`
		Reason string `json:"reason"`
	}
	Verified struct { // 14
		Digests []string `json:"digests"`
		InPlace bool     `json:"inPlace"`
	}
	Commit    struct{} // 15
	Committed struct { // 16
		Digest string `json:"digest"`
	}
	Bye   struct{} // 17
	Abort struct { // 18
		Reason string `json:"reason"`
		Keep   bool   `json:"keep"`

		// Code exists since version 3, and is empty before.
		Code Code `json:"code,omitempty"`
	}
	Ping     struct{} // 19
	Pong     struct{} // 20
	Fallback struct { // 21
		Link       uint32 `json:"link"`
		Generation uint32 `json:"generation"`
		Blob       int    `json:"blob"`
		Offset     int64  `json:"offset"`
		Good       int64  `json:"good"`
	}
	Probe struct { // 22; this type and those behind it exist since version 2
		Probe uint32   `json:"probe"`
		Name  string   `json:"name"`
		Addrs []string `json:"addrs"`
	}
	Probed struct { // 23
		Probe  uint32 `json:"probe"`
		Code   Code   `json:"code"`
		Reason string `json:"reason"`
	}
	Good struct { // 24, since version 6
		Blob int   `json:"blob"` // this and the next as in Report
		Good int64 `json:"good"`
	}
	Compare  struct{} // 25; this type and the next one exist since version 6
	Compared struct { // 26
		Leaves []Leaves `json:"leaves,omitempty"`
		Bytes  int64    `json:"bytes,omitempty"`
	}
)

// Sending is what a feeder says about a link in its Report.
type Sending struct {
	Link uint32 `json:"link"`
	// Idle says that there was nothing to send for most of the last second, or that there is nothing to send now and
	// the receiver has acknowledged everything.
	Idle bool `json:"idle"`
	// Rate is how many bytes per second the link carried while nothing but the link limited it. 0 is unknown.
	Rate int64 `json:"rate"`
	// Burst is how many bytes per second the link carried in moments, if it was not busy enough for a Rate. 0 is unknown.
	Burst int64 `json:"burst"`
	// Held says that the receiver took nothing for nine tenths of the time.
	Held bool `json:"held"`

	// Acked is how many bytes the kernel of the receiver has acknowledged since the link was opened. It and Ended exist
	// since version 4, and are empty before.
	Acked int64 `json:"acked,omitempty"`
	// Ended says that the link ended since the last report. This is reported once, because of Acked.
	Ended bool `json:"ended,omitempty"`
}

// Leaves are leaves of a blob that a node holds: in an ANSWER by its claim, in a NEED and a DIAL those that are not to be sent.
type Leaves struct {
	Blob int `json:"blob"`
	// Set is a leaf.Set of the blob, as its Bits.
	Set []byte `json:"set"`
}

// Mark is the server's running sum of a blob at Offset. If Final is true, Offset is the size of the blob, and Sum is its
// SHA-256.
type Mark struct {
	Blob   int    `json:"blob"`
	Offset int64  `json:"offset"`
	Sum    []byte `json:"sum"`
	Final  bool   `json:"final"`
}

// These are the states of Welcome and Link.
const (
	StateNew     = "new"
	StateRunning = "running"
	StateBusy    = "busy"
	StateUnknown = "unknown"

	LinkUp   = "up"
	LinkDone = "done"
	LinkDown = "down"
)

// makers has, by type, a function that makes an empty message to decode into.
var makers = [...]func() Message{
	1: func() Message { return new(Hello) }, 2: func() Message { return new(Welcome) },
	3: func() Message { return new(Offer) }, 4: func() Message { return new(Answer) },
	5: func() Message { return new(Start) }, 6: func() Message { return new(Feed) },
	7: func() Message { return new(Need) }, 8: func() Message { return new(Dial) },
	9: func() Message { return new(Link) }, 10: func() Message { return new(Undial) },
	11: func() Message { return new(Marks) }, 12: func() Message { return new(Report) },
	13: func() Message { return new(Fail) }, 14: func() Message { return new(Verified) },
	15: func() Message { return new(Commit) }, 16: func() Message { return new(Committed) },
	17: func() Message { return new(Bye) }, 18: func() Message { return new(Abort) },
	19: func() Message { return new(Ping) }, 20: func() Message { return new(Pong) },
	21: func() Message { return new(Fallback) }, 22: func() Message { return new(Probe) },
	23: func() Message { return new(Probed) }, 24: func() Message { return new(Good) },
	25: func() Message { return new(Compare) }, 26: func() Message { return new(Compared) },
	27: func() Message { return new(Ask) }, 28: func() Message { return new(Holds) },
	29: func() Message { return new(Want) }, 30: func() Message { return new(Wanted) },
	31: func() Message { return new(Tend) }, 32: func() Message { return new(Tending) },
	33: func() Message { return new(Tended) },
}

func (*Hello) kind() byte     { return 1 }
func (*Welcome) kind() byte   { return 2 }
func (*Offer) kind() byte     { return 3 }
func (*Answer) kind() byte    { return 4 }
func (*Start) kind() byte     { return 5 }
func (*Feed) kind() byte      { return 6 }
func (*Need) kind() byte      { return 7 }
func (*Dial) kind() byte      { return 8 }
func (*Link) kind() byte      { return 9 }
func (*Undial) kind() byte    { return 10 }
func (*Marks) kind() byte     { return 11 }
func (*Report) kind() byte    { return 12 }
func (*Fail) kind() byte      { return 13 }
func (*Verified) kind() byte  { return 14 }
func (*Commit) kind() byte    { return 15 }
func (*Committed) kind() byte { return 16 }
func (*Bye) kind() byte       { return 17 }
func (*Abort) kind() byte     { return 18 }
func (*Ping) kind() byte      { return 19 }
func (*Pong) kind() byte      { return 20 }
func (*Fallback) kind() byte  { return 21 }
func (*Probe) kind() byte     { return 22 }
func (*Probed) kind() byte    { return 23 }
func (*Good) kind() byte      { return 24 }
func (*Compare) kind() byte   { return 25 }
func (*Compared) kind() byte  { return 26 }
func (*Ask) kind() byte       { return 27 }
func (*Holds) kind() byte     { return 28 }
func (*Want) kind() byte      { return 29 }
func (*Wanted) kind() byte    { return 30 }
func (*Tend) kind() byte      { return 31 }
func (*Tending) kind() byte   { return 32 }
func (*Tended) kind() byte    { return 33 }
