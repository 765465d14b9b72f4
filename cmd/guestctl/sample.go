package main

import (
	"container/heap"
	"hash/fnv"
	"math"
	"slices"
)

// A sample keeps the keys of a stream that have the smallest hashes. It is random, because the hash
// does not depend on the record's contents, and it is the same whatever the order of the keys, and
// however often each comes.
type sample struct {
	most  int
	heap  keyHeap
	inIt  map[string]bool
	total int64 // keys seen
}

type hashedKey struct {
	hash uint64
	key  string
}

type keyHeap []hashedKey // the largest hash on top

func (h keyHeap) Len() int           { return len(h) }
func (h keyHeap) Less(i, j int) bool { return h[i].hash > h[j].hash }
func (h keyHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *keyHeap) Push(x any)        { *h = append(*h, x.(hashedKey)) }
func (h *keyHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func newSample(most int) *sample { return &sample{most: most, inIt: map[string]bool{}} }

func (s *sample) add(key string) {
	s.total++
	h := fnv.New64a()
	h.Write([]byte(key))
	k := hashedKey{mix(h.Sum64()), key}
	switch {
	case s.inIt[key]:
		s.total-- // Redis may return a key twice while it resizes its table
		return
	case len(s.heap) < s.most:
	case s.most == 0 || k.hash >= s.heap[0].hash:
		return
	default:
		delete(s.inIt, heap.Pop(&s.heap).(hashedKey).key)
	}
	heap.Push(&s.heap, k)
	s.inIt[key] = true
}

// mix spreads the low bits of the hash, which FNV distributes well, to the high ones.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// z is the number of standard errors in a bound: the true value lies within it in 99 of 100
// samples.
const z = 2.576

// A figure is a number, exact if PlusMinus is 0.
type figure struct {
	Value     float64 `json:"value"`
	PlusMinus float64 `json:"plus_minus"`
}

// share extrapolates how many of total have a property that hits of the n in the sample have. The
// bound is that of Agresti and Coull, which also holds for rare properties, with the correction for
// a sample that is a large part of the whole.
func share(hits, n int, total float64) figure {
	if n == 0 {
		return figure{}
	}
	value := total * float64(hits) / float64(n)
	if float64(n) >= total {
		return figure{Value: value}
	}
	size := float64(n) + z*z
	centre := (float64(hits) + z*z/2) / size
	reach := z * math.Sqrt(centre*(1-centre)/size*(total-float64(n))/(total-1))
	// The value is not the centre of the interval, so the bound is its farther end, but no farther
	// than the sample allows.
	p := float64(hits) / float64(n)
	bound := math.Max(centre+reach-p, p-(centre-reach)) * total
	return figure{math.Round(value), math.Ceil(bound)}
}

// sum extrapolates the sum of all values. It assumes that no value outside the sample is larger
// than the largest in it.
func sum(values []float64, total float64) figure {
	n := float64(len(values))
	if n == 0 {
		return figure{}
	}
	var added, squares float64
	for _, v := range values {
		added += v
	}
	for _, v := range values {
		squares += (v - added/n) * (v - added/n)
	}
	value := total * added / n
	if n >= total || n < 2 {
		return figure{Value: value}
	}
	deviation := math.Sqrt(squares / (n - 1) / n * (total - n) / (total - 1))
	missed := share(0, len(values), total).PlusMinus * slices.Max(values)
	return figure{math.Round(value), math.Ceil(z*deviation*total + missed)}
}
