package cache

// Usage is how much a cache has.
type Usage struct {
	// Bytes is the size of all blobs, which Limits.Max bounds.
	Bytes int64
	// Images is how many entries List has.
	Images int
}

// Usage looks at every blob's size and reads none. It takes no lock, so that what changes meanwhile may be counted or not.
func (c *Cache) Usage() (u Usage, err error) {
	index, err := c.readIndex()
	if err != nil {
		return u, err
	}
	wishes, err := c.readWishes()
	if err != nil {
		return u, err
	}
	u.Images = len(index.Manifests) + len(c.nameless(index, wishes.keepers()))
	_, u.Bytes, err = c.blobSizes()
	return u, err
}
