//go:build !race

package guest

const RaceEnabled = false
