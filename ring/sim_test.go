package ring

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/simcheck"
)

var (
	simSeeds = flag.Int("sim.seeds", 0, "simulate so many seeds; 0: 300, 50 with the race detector, 200 with -short")
	simFirst = flag.Uint64("sim.first", 1, "the first seed to simulate")
	simSeed  = flag.Uint64("sim.seed", 0, "simulate only this one, and print its scenario and history")
)

// Everything is made smaller together: a window holds fewer marks than a blob has.
const (
	simFrame = 16 << 10
	simMark  = 64 << 10
	simZero  = 4 << 10
	simAhead = 8
)

var simSizes = relay.Sizes{Mark: simMark, Chunk: simMark, Frame: simFrame, Zero: simZero, Ahead: simAhead}

// TestSim runs what went wrong once (testdata/sim), then scenarios made from
// seeds, and has their histories judged.
func TestSim(t *testing.T) {
	files, err := filepath.Glob("testdata/sim/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no regressions in testdata/sim: %v", err)
	}
	if *simSeed != 0 {
		t.Run(fmt.Sprint("seed", *simSeed), func(t *testing.T) { simulate(t, generate(*simSeed)) })
		return
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".json"), func(t *testing.T) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			sc, err := parseScenario(b)
			if err != nil {
				t.Fatal(err)
			}
			simulate(t, sc)
		})
	}
	seeds := *simSeeds
	switch {
	case seeds != 0:
	case raceDetector:
		seeds = 50
	case testing.Short():
		seeds = 200
	default:
		seeds = 300
	}
	t.Run("seeds", func(t *testing.T) { simulateAll(t, seeds, generate) })
}

// simulateAll runs what so many seeds make, in two lanes. Each ends when five have failed.
func simulateAll(t *testing.T, seeds int, generate func(seed uint64) simCase) {
	const lanes = 2
	for lane := range lanes {
		t.Run(fmt.Sprint("lane", lane), func(t *testing.T) {
			t.Parallel()
			failed := 0
			for i := lane; i < seeds && failed < 5; i += lanes {
				seed := *simFirst + uint64(i)
				if !t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { simulate(t, generate(seed)) }) {
					failed++
				}
			}
		})
	}
}

// simulate runs one scenario in a bubble and judges its history.
func simulate(t *testing.T, sc simCase) {
	var events []simcheck.Event
	synctest.Test(t, func(t *testing.T) { events = newSim(t, sc, simSizes).run() })
	text := simcheck.Encode(events)
	read, err := simcheck.Decode(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	bad := simcheck.Check(read)
	for _, err := range bad {
		t.Error(err)
	}
	if len(bad) > 0 || *simSeed != 0 {
		t.Logf("scenario (a file of testdata/sim, once it has a cause):\n%s", sc.text())
	}
	switch {
	case *simSeed != 0, sc.Cause != "" && len(bad) > 0:
		t.Logf("history:\n%s", text)
	case len(bad) > 0:
		t.Logf("again, with its history: go test ./ring -run 'TestSim$' -v -sim.seed=%d", sc.Seed)
	}
}
