package stream

// Topics returns how many responses the hub keeps anything of.
func (h *Hub) Topics() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.topics)
}

// Bytes returns what the events in memory weigh.
func (h *Hub) Bytes() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, t := range h.topics {
		t.mu.Lock()
		n += t.bytes
		t.mu.Unlock()
	}
	return n
}
