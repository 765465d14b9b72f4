-- Changes one field of a record, as most calls of visitors do. update.lua makes all other updates.
--
-- KEYS[1]   the record, a hash
-- ARGV[1]   operation ID, 8 bytes; it begins with its time, 6 bytes
-- ARGV[2]   "add", "set" or "remove"
-- ARGV[3]   the field; its name does not begin with a dot
-- ARGV[4]   the number to add; the value to set; "" to remove the field
-- ARGV[5]   a field that must be absent; "" for none
-- ARGV[6]   a field to set if it is absent, whose name begins with a dot; "" for none
-- ARGV[7]   its value
-- ARGV[8]   the most fields that the record may have; "0": any number
-- ARGV[9]   the most bytes that their names and values may take; "0": any number
-- ARGV[10]  TTL in milliseconds, if this creates the record; "0": it lives for ever
--
-- Returns
--
--   1                      done; the field is gone, or was set
--   {1, field, sum}        done; what "add" left
--   {0, name, value, ...}  not done, as the field in ARGV[5] is there: that, and for "add" also the
--                          field in ARGV[3]
--   {-1, time}             not done now, perhaps before: this operation is older than all seven
--                          that the record remembers, the latest of which is of this time
--   {-2, message}          not done, as the record would be over its quota
--   {-3, message}          not done, as there is no whole number to add to, or the sum is too large
--
-- The field "!" is the store's own: the number of fields in 2 bytes and the bytes of their names
-- and values in 4, both without fields whose names begin with a dot; then the IDs of the last seven
-- operations, the latest first. All numbers are big-endian. That is 62 bytes at most, as a value of
-- more than 64 would take the hash out of Redis's compact encoding. A record without such fields
-- and operations has no field "!".
--
-- Redis does not undo what a failing script has written, so all is read and checked before the
-- first write.

local APPLIED, NOT_APPLIED, STALE, OVER_QUOTA, INVALID = 1, 0, -1, -2, -3
local MAX = 9007199254740992 -- 2^53: up to here Lua's numbers are exact

local call, floor = redis.call, math.floor
local byte, char, format, sub = string.byte, string.char, string.format, string.sub
local key, id, action, name, operand = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local barred, default = ARGV[5], ARGV[6]

-- time_of reads the time of the operation ID that begins at this byte of s.
local function time_of(s, at)
  local a, b, c, d, e, f = byte(s, at, at + 5)
  return ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f
end

local function decimal(n) return format('%.0f', n) end

local old = call('HMGET', key, '!', name, barred, default)
local own, had, has_default = old[1] or '\0\0\0\0\0\0', old[2], default == '' or old[4]

-- Was this operation applied before? One that is older than all seven may have been, and forgotten.
-- Times are compared as numbers, because < of strings follows the locale.
local time, at = time_of(id, 1), 7
while at < #own do
  local other = time_of(own, at)
  if other < time then break end
  if sub(own, at, at + 7) == id then
    return action == 'add' and had and {APPLIED, name, had} or APPLIED
  end
  at = at + 8
end
if at == 63 then return {STALE, decimal(time_of(own, 7))} end

if barred ~= '' and old[3] then
  if action == 'add' and had then return {NOT_APPLIED, barred, old[3], name, had} end
  return {NOT_APPLIED, barred, old[3]}
end

local value = action == 'set' and operand
if action == 'add' then
  local sum, amount = tonumber(had or 0), tonumber(operand)
  local is_whole = sum and sum >= -MAX and sum <= MAX
    and (not had or decimal(sum + 0) == had) -- + 0 makes 0 of -0
  if not is_whole then
    return {INVALID, 'the field to add to is not a whole number within 2^53'}
  end
  -- sum + amount may be rounded, so it is not compared with MAX.
  if amount > 0 and sum > MAX - amount or amount < 0 and sum < -MAX - amount then
    return {INVALID, 'the sum is beyond 2^53'}
  end
  value = sum + amount ~= 0 and decimal(sum + amount)
end

local a, b, c, d, e, f = byte(own, 1, 6)
local had_fields, had_bytes = a * 256 + b, ((c * 256 + d) * 256 + e) * 256 + f
local fields, bytes = had_fields, had_bytes
if had then fields, bytes = fields - 1, bytes - #name - #had end
if value then fields, bytes = fields + 1, bytes + #name + #value end
local max_fields, max_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])
if max_fields > 0 and fields > max_fields and fields > had_fields
  or max_bytes > 0 and bytes > max_bytes and bytes > had_bytes then
  return {OVER_QUOTA, format('%d fields of %d bytes', fields, bytes)}
end

local creates = not (old[1] or had or old[4]) and call('EXISTS', key) == 0
if creates and has_default and not value then return APPLIED end -- there is nothing to remove

-- A record with more than 65535 fields is not counted right.
if fields > 65535 then fields = 65535 elseif fields < 0 then fields = 0 end
if bytes < 0 then bytes = 0 end
own = char(floor(fields / 256), fields % 256,
  floor(bytes / 16777216) % 256, floor(bytes / 65536) % 256, floor(bytes / 256) % 256, bytes % 256)
  .. sub(own, 7, at - 1) .. id .. sub(own, at, 54)

if not has_default then call('HSET', key, default, ARGV[7]) end
if value then
  call('HSET', key, name, value, '!', own)
else
  -- A full Redis refuses a script whose first write may take memory. A removal gives it back, so it
  -- begins with a write that cannot take any, and that does nothing. The field goes last: a hash
  -- without fields is gone, and its TTL with it.
  call('HDEL', key, '!none')
  call('HSET', key, '!', own)
  call('HDEL', key, name)
end
if creates and ARGV[10] ~= '0' then call('PEXPIRE', key, ARGV[10]) end
return action == 'add' and value and {APPLIED, name, value} or APPLIED
