package ring

import (
	"errors"
	"fmt"
)

// What a node does is set by a NodeConfig that can be replaced while it runs. It is replaced as a
// whole and never changed, so that nothing acts on half of a new one.

// configure checks cfg and puts it in force. Each connection keeps the one it began with.
func (n *nodeServer) configure(cfg NodeConfig) error {
	if cfg.Accept == nil || cfg.TLS == nil || cfg.DataTLS == nil {
		return errors.New("ring: NodeConfig needs Accept and TLS configurations")
	}
	if cfg.Transfers <= 0 {
		cfg.Transfers = 4
	}
	if want := cfg.Transfers * minChunks; n.pool.limit < want {
		return fmt.Errorf("ring: %d transfers need a window of %d bytes, it has %d", cfg.Transfers, want*chunkSize, n.pool.limit*chunkSize)
	}
	n.cfg.Store(&cfg)
	return nil
}

// config is what is in force now.
func (n *nodeServer) config() *NodeConfig { return n.cfg.Load() }

// runsPlain tells whether a transfer has plain links that was admitted when they were allowed.
func (n *nodeServer) runsPlain() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.transfers {
		if t.plain {
			return true
		}
	}
	return false
}

func (n *nodeServer) running() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.transfers)
}
