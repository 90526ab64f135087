// Package coordinator decides for the server who is in the chain, who feeds whom, who may commit and what
// each row says, as a pure state machine: Step takes an event and returns actions. It does no I/O and
// knows the time only from EvTick. Package ring drives it (PROTOCOL.md sections 8 and 9).
package coordinator
