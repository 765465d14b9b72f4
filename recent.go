package guest

import "sync"

// recent remembers something of the guests last seen, in bounded memory: two generations of a map, the older one
// thrown away when the younger is full. It only ever saves work, so forgetting is harmless.
type recent[V any] struct {
	mu       sync.Mutex
	young    map[guestID]V
	old      map[guestID]V
	capacity int // of a generation; 0: 8192
}

func (r *recent[V]) get(id guestID) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v, ok := r.young[id]; ok {
		return v, true
	}
	v, ok := r.old[id]
	return v, ok
}

func (r *recent[V]) put(id guestID, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.capacity == 0 {
		r.capacity = 8192
	}
	if r.young == nil || len(r.young) >= r.capacity {
		r.old, r.young = r.young, map[guestID]V{}
	}
	r.young[id] = v
}

func (r *recent[V]) delete(id guestID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.young, id)
	delete(r.old, id)
}
