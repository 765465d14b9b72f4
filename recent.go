package guest

import (
	"hash/maphash"
	"sync"
)

// recent remembers something of the guests or tokens last seen, in bounded memory that it takes at once. It only ever
// saves work, so forgetting is harmless: each key has two places, of which a new one takes that of the elder.
type recent[K comparable, V any] struct {
	mu     sync.Mutex
	seed   maphash.Seed
	places [][2]remembered[K, V] // the younger first; a power of two
}

type remembered[K comparable, V any] struct {
	key  K // the zero value is nobody's
	what V
}

const recentPlaces = 1 << 13

func (r *recent[K, V]) get(key K) (v V, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.places == nil {
		return v, false
	}
	for _, p := range r.of(key) {
		if p.key == key {
			return p.what, true
		}
	}
	return v, false
}

func (r *recent[K, V]) put(key K, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.places == nil {
		r.seed, r.places = maphash.MakeSeed(), make([][2]remembered[K, V], recentPlaces)
	}
	p := r.of(key)
	if p[0].key != key {
		p[1] = p[0]
	}
	p[0] = remembered[K, V]{key, v}
}

func (r *recent[K, V]) delete(key K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.places == nil {
		return
	}
	for i, p := range r.of(key) {
		if p.key == key {
			r.of(key)[i] = remembered[K, V]{}
		}
	}
}

func (r *recent[K, V]) of(key K) *[2]remembered[K, V] {
	return &r.places[maphash.Comparable(r.seed, key)&uint64(len(r.places)-1)]
}
