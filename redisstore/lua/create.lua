-- Creates a record, unless there is one: the first write of a new guest.
--
-- KEYS[1]   the record, a hash
-- ARGV[1]   TTL in milliseconds; "0": it lives for ever
-- ARGV[2…]  names and values of its fields, in turn, also of the field "!", which write.lua
-- describes
--
-- Returns 1; or 0 if there is a record, which stays as it is.

local PART = 1000 -- arguments of one call: Lua's stack bounds them
local unpack = unpack or table.unpack -- Lua 5.1; Lua 5.4

if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for first = 2, #ARGV, PART do
  redis.call('HSET', KEYS[1], unpack(ARGV, first, math.min(#ARGV, first + PART - 1)))
end
if ARGV[1] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
