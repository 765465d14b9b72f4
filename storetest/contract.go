package storetest

// The sentences of store.go that cases quote.
const (
	duty1  = `A record that was never written, was dropped or has expired reads as one without fields; that is no error.`
	duty2  = `An update is atomic: no reader sees a part of it, and two updates of one record happen one after the other.`
	duty3  = `If a condition of an update does not hold, or the store's clock is past NotAfter, nothing changes: Result.Applied is false and Result.Fields holds the current values of the fields in If and Return.`
	duty4  = `An update with Once is applied at most once, however often the store sends it. When the store cannot tell whether it was applied, the error wraps [ErrUncertain]. Any other error means that nothing changed.`
	duty5  = `An update that would leave a record over its Quota, and larger than it was, changes nothing; the error wraps [ErrQuota]. Fields whose names begin with "." do not count.`
	duty6  = `An addition to what is not a whole number, or beyond ±2^53, changes nothing; the error wraps [ErrInvalid].`
	duty7  = `TTL makes the record live at least that long from now, and never shortens its life. It is set in the same step as the fields. With KeepTTL it does so only for a record that was absent before. A record made without one lives for ever.`
	duty8  = `A context that is cancelled or past its deadline before a call stops it: it changes nothing and answers the context's error. A deadline that passes during a call ends the call.`
	duty9  = `What is returned belongs to the caller: changing it changes nothing in the store.`
	duty10 = `Reserve lets an update pass although the store is full: it is a step of a claim, which gives memory back.`
	duty11 = `Keys and field names are any bytes without NUL; values are at least one byte. Names that begin with "!" are the store's own: they occur in no call and no answer.`

	getSays     = `Get returns those of the named fields that the record has; with no name, all of them.`
	keysSays    = `Keys yields the keys that begin with prefix, in no order, some perhaps twice.`
	stepsSays   = `The steps happen in the order of the fields: conditions first, then Drop, or else Default, Set, Add, Unset, UnsetPrefix, Stamp, TTL; then Return is read.`
	ifSays      = `what these fields must hold now; "" means that the field must be absent`
	afterSays   = `the store's clock must not be past this; zero: no limit`
	dropSays    = `remove the whole record; no other change is made`
	defaultSays = `set where the field is absent`
	addSays     = `add to a decimal number, absent being 0; a field whose sum is 0 is removed`
	unsetSays   = `remove the fields of exactly these names`
	prefixSays  = `remove every field whose name begins with one of these`
	stampSays   = `set this field to the store's time, Unix milliseconds in decimal; "": none`
	ttlSays     = `see duty 7; 0 leaves the expiry as it is`
	newSays     = `a hint, nothing else: there is likely no record; no other update has what is in Default, or changes those fields`
	returnSays  = `after the update the fields in Return; if it was not applied, those in If and Return as they are`
	nowSays     = `the store's clock, to the millisecond; only after an update with Stamp or NotAfter`
)
