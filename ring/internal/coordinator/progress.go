package coordinator

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// progress is how far a node is, as its reports say. Of the server only report and links are used.
type progress struct {
	report wire.Report
	links  []wire.Sending // of the report before
	moved  time.Duration  // when its report last told of progress
	told   time.Duration  // when its last report came
	rate   int64          // bytes per second it received between the last two; 0 is unknown
	before int64          // rate of the report before
	best   int64          // bytes per second it got in two reports in a row, since somebody was called slow last
}
