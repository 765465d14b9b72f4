package guest

import (
	"hash/maphash"
	"sync"
)

// recent remembers something of the guests or tokens last seen, in memory that it takes at once and that does not grow. It only
// ever saves work, so forgetting is harmless: chance gives a key its place, where two have room, and the elder makes way.
type recent[K comparable, V any] struct {
	mu     sync.Mutex
	seed   maphash.Seed
	places []place[K, V]
}

type place[K comparable, V any] [2]memory[K, V] // the younger first

type memory[K comparable, V any] struct {
	hash uint64 // spares us most looks at keys, which may be strings far away
	key  K
	what V
}

const recentPlaces = 1 << 13

func (r *recent[K, V]) get(key K) (v V, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, _, m := r.find(key); m != nil {
		return m.what, true
	}
	return v, false
}

func (r *recent[K, V]) put(key K, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.places == nil {
		r.seed, r.places = maphash.MakeSeed(), make([]place[K, V], recentPlaces)
	}
	hash, p, m := r.find(key)
	if m != nil {
		m.what = v
		return
	}
	p[1], p[0] = p[0], memory[K, V]{hash, key, v}
}

func (r *recent[K, V]) delete(key K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, _, m := r.find(key); m != nil {
		*m = memory[K, V]{}
	}
}

// find returns the key's place, if there are places yet, and what is remembered of it; nil: nothing.
func (r *recent[K, V]) find(key K) (hash uint64, p *place[K, V], m *memory[K, V]) {
	if r.places == nil {
		return 0, nil, nil
	}
	hash = maphash.Comparable(r.seed, key)
	p = &r.places[hash%recentPlaces]
	for i := range p {
		if p[i].hash == hash && p[i].key == key {
			return hash, p, &p[i]
		}
	}
	return hash, p, nil
}
