-- Creates a record, unless there is one: the first write of a new guest.
--
-- KEYS[1]   the record, a hash
-- ARGV[1]   TTL in milliseconds; "0": it lives for ever
-- ARGV[2…]  names and values of its fields, in turn
--
-- Returns 1; or 0 if there is a record, which stays as it is.

if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for first = 2, #ARGV, 1000 do -- Lua's stack bounds the arguments of one call
  redis.call('HSET', KEYS[1], unpack(ARGV, first, math.min(#ARGV, first + 999)))
end
if ARGV[1] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
