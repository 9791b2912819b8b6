package collector

import "context"

// Importing says whether an import is running in this process: what counts
// whole days should wait until it has ended.
func (c *Collector) Importing(context.Context) (bool, error) {
	c.imports.mu.Lock()
	defer c.imports.mu.Unlock()
	return len(c.imports.running) > 0, nil
}
