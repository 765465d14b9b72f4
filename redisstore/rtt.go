package redisstore

import "time"

// An estimator computes how long to wait for an answer, as TCP does for an acknowledgement (RFC
// 6298): the smoothed time that answers take, plus four times its variation. A call that was not
// answered is no sample.
//
// In addition it leaves time for what past answers do not show: a connection that has to be made
// first, which takes some round trips, and a pause of the server, such as a fork.
type estimator struct {
	least, most time.Duration

	sampled   bool
	smoothed  time.Duration
	variation time.Duration
}

// connecting is how many times an answer's time a call may take that has to connect first: TCP, TLS
// (two before TLS 1.3), HELLO, SELECT, CLIENT SETINFO, and the command itself. With less, as many
// connections as are needed at once, when many visitors come after few, are never made.
const connecting = 7

// sample records that an answer took d.
func (e *estimator) sample(d time.Duration) {
	if !e.sampled {
		e.sampled, e.smoothed, e.variation = true, d, d/2
		return
	}
	e.variation += ((e.smoothed - d).Abs() - e.variation) / 4
	e.smoothed += (d - e.smoothed) / 8
}

// timeout returns how long to wait for an answer.
func (e *estimator) timeout() time.Duration {
	if !e.sampled {
		return e.most
	}
	more := max(4*e.variation, (connecting-1)*e.smoothed, e.least)
	return e.smoothed + min(more, e.most-e.smoothed) // the sum of more and smoothed may overflow
}
