// Package member is a node's part in one transfer as a pure state machine: Step takes an event and
// returns actions. It does no I/O and knows no time. Package ring drives it (PROTOCOL.md sections 7 and 8).
package member
