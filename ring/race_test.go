//go:build race

package ring

// raceDetector makes everything about ten times slower.
const raceDetector = true
