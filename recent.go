package guest

import "sync"

// recent remembers something of the guests or tokens last seen, in bounded memory: two generations of a map, the older one
// thrown away when the younger is full. It only ever saves work, so forgetting is harmless.
type recent[K comparable, V any] struct {
	mu       sync.Mutex
	young    map[K]V
	old      map[K]V
	capacity int // of a generation; 0: 8192
}

func (r *recent[K, V]) get(key K) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v, ok := r.young[key]; ok {
		return v, true
	}
	v, ok := r.old[key]
	return v, ok
}

func (r *recent[K, V]) put(key K, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.capacity == 0 {
		r.capacity = 8192
	}
	if r.young == nil || len(r.young) >= r.capacity {
		r.old, r.young = r.young, map[K]V{}
	}
	r.young[key] = v
}

func (r *recent[K, V]) delete(key K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.young, key)
	delete(r.old, key)
}
