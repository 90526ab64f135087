//go:build race

package warm

// raceDetector makes everything about ten times slower.
const raceDetector = true
