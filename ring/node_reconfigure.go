package ring

import (
	"errors"
	"fmt"
)

// What a node does is set by a NodeConfig that can be replaced while it runs. It is replaced as a
// whole and never changed, so that nothing acts on half of a new one.

// Reconfigure checks cfg and puts it in force for connections and transfers that begin from now on:
// running transfers keep what they were admitted with, but the links that they still open use the new
// keys. Log, Software and Platform should be those of NewNode. After an error nothing
// has changed.
func (n *Node) Reconfigure(cfg NodeConfig) error {
	if cfg.Accept == nil || cfg.TLS == nil || cfg.DataTLS == nil || cfg.Client == nil {
		return errors.New("ring: NodeConfig needs Accept, Client and TLS configurations")
	}
	if cfg.Transfers <= 0 {
		cfg.Transfers = 4
	}
	if need, have := n.pool.Fits(cfg.Transfers); have < need {
		return fmt.Errorf("ring: %d transfers need a window of %d bytes, it has %d", cfg.Transfers, need, have)
	}
	n.cfg.Store(&cfg)
	return nil
}

// config is what is in force now.
func (n *Node) config() *NodeConfig { return n.cfg.Load() }

// runsPlain tells whether a transfer has plain links that was admitted when they were allowed.
func (n *Node) runsPlain() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.sessions {
		if s.plain {
			return true
		}
	}
	return false
}

// Traffic returns how much payload the data links of this node have brought and taken since NewNode, in bytes. Runs of zeros that do
// not travel are not counted, and what travels twice is counted twice.
func (n *Node) Traffic() (received, sent int64) { return n.pool.Traffic() }

// Running is the number of transfers that this node takes part in now.
func (n *Node) Running() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.sessions)
}
