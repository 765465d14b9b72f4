// Package lru is a cache of bounded size that forgets the keys that were written longest ago.
package lru

import (
	"hash/maphash"
	"sync"
)

// A Cache remembers a value for each of the keys written last. Its memory is allocated at the first
// write and does not grow. The hash of a key chooses one of 8,192 buckets of two entries each, and
// the older entry is replaced, so a key may be forgotten sooner than others that are older. Keep in
// a Cache only what saves work. The zero value is empty and ready to use. It is safe for concurrent
// use.
type Cache[K comparable, V any] struct {
	mu      sync.Mutex
	seed    maphash.Seed
	buckets []bucket[K, V]
}

type bucket[K comparable, V any] [2]entry[K, V] // the newer one first

type entry[K comparable, V any] struct {
	hash  uint64 // compared first: keys may be strings far away in memory
	key   K
	value V
}

const buckets = 1 << 13

// Get returns the value of the key, if it is remembered.
func (c *Cache[K, V]) Get(key K) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, _, e := c.find(key); e != nil {
		return e.value, true
	}
	return v, false
}

// Put remembers a value for the key.
func (c *Cache[K, V]) Put(key K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buckets == nil {
		c.seed, c.buckets = maphash.MakeSeed(), make([]bucket[K, V], buckets)
	}
	hash, b, e := c.find(key)
	if e != &b[0] {
		b[1] = b[0]
	}
	b[0] = entry[K, V]{hash, key, v}
}

// Delete forgets the key.
func (c *Cache[K, V]) Delete(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, _, e := c.find(key); e != nil {
		*e = entry[K, V]{}
	}
}

// find returns the key's bucket, or nil if nothing was ever written, and its entry, or nil.
func (c *Cache[K, V]) find(key K) (hash uint64, b *bucket[K, V], e *entry[K, V]) {
	if c.buckets == nil {
		return 0, nil, nil
	}
	hash = maphash.Comparable(c.seed, key)
	b = &c.buckets[hash%buckets]
	for i := range b {
		if b[i].hash == hash && b[i].key == key {
			return hash, b, &b[i]
		}
	}
	return hash, b, nil
}
