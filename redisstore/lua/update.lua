-- One update of one record: KEYS[1] is its hash; updateArgs in update.go writes ARGV.
--
-- All is read and checked before the first write, because Redis keeps what a failing script has written. After it
-- nothing can fail: Redis looks at its memory only until then. No closures and few tables: they cost the most here.
--
-- The field "!" is the store's own. It has at most 63 bytes, because a value of more than 64 would take the hash out
-- of its compact encoding: in 3 bytes the number of fields, in 4 the bytes of their names and values, both without
-- fields whose names begin with "."; then the ring, IDs of the last updates with Once, up to seven of 8 bytes each.

local APPLIED, NOT_APPLIED, STALE, OVER_QUOTA, INVALID = 1, 0, -1, -2, -3
local MAX = 9007199254740992 -- 2^53: up to here Lua's numbers are exact
local PART = 4000            -- arguments of one command; Lua's stack bounds them
local unpack = table.unpack or unpack -- Lua 5.4, 5.1

local key, id = KEYS[1], ARGV[1]
local drop, reserve, all, stamped, ttl, not_after, max_fields, max_bytes, if_n, default_n, add_n, return_n, set_n, unset_n =
  struct.unpack('>BBBBddI4I4I4I4I4I4I4I4', ARGV[2])
-- From ARGV[3] on: the names in If, Default, Add and Return; the values of If, Default and Add; the names and values of
-- Set; the names in Unset; Stamp, unless it is empty.
local if1 = 3
local default1 = if1 + if_n
local add1 = default1 + default_n
local return1 = add1 + add_n
local value = return1 + return_n - if1 -- from a name to its value
local set1 = return1 + value
local unset1 = set1 + 2 * set_n

-- Read. old holds the fields that are asked for; false: absent.
local old = {}
local first = if1
repeat
  local last = math.min(first + PART, return1 + return_n) - 1
  local values = redis.call('HMGET', key, '!', unpack(ARGV, first, last))
  for i = first, last do old[ARGV[i]] = values[i - first + 2] end
  old['!'] = values[1]
  first = last + 1
until first >= return1 + return_n
local now = ''
if stamped == 1 or not_after > 0 then
  local t = redis.call('TIME')
  now = t[1] .. string.format('%03d', math.floor(tonumber(t[2]) / 1000))
end
local expires = ttl > 0 and redis.call('PTTL', key) -- -1: never, -2: no record

local status = APPLIED
local new = {} -- what the update makes of a field; false: absent
repeat -- a break goes to the answer

  -- Was it applied before? The ring is sorted by time, and its oldest ID is the one that leaves it. So an ID newer than
  -- that was never in it and left; of any other nobody knows. Times are numbers: < of strings follows the locale.
  local own = old['!'] or '\0\0\0\0\0\0\0'
  local ring = string.sub(own, 8)
  if id ~= '' then
    local function time(s, i)
      local high, low = struct.unpack('>I2I4', s, i) -- not I6: a 32-bit Redis would cut it off
      return high * 4294967296 + low
    end
    local at = 0
    repeat at = string.find(ring, id, at + 1, true) until not at or at % 8 == 1
    if at then break end
    at = #ring
    local t = time(id, 1)
    while at > 0 and time(ring, at - 7) >= t do at = at - 8 end
    if #ring == 56 and at == 0 then return {STALE, string.format('%.0f', time(ring, 1))} end
    ring = string.sub(ring, 1, at) .. id .. string.sub(ring, at + 1)
    if #ring > 56 then ring = string.sub(ring, 9) end
  end

  if not_after > 0 and tonumber(now) > not_after then status = NOT_APPLIED end
  for i = if1, default1 - 1 do
    if (old[ARGV[i]] or '') ~= ARGV[i + value] then status = NOT_APPLIED end
  end
  if status == NOT_APPLIED then break end
  if drop == 1 then
    redis.call('DEL', key)
    return {APPLIED, now, {}}
  end

  -- Plan.
  for i = default1, add1 - 1 do
    if not old[ARGV[i]] then new[ARGV[i]] = ARGV[i + value] end
  end
  for i = set1, unset1 - 1, 2 do new[ARGV[i]] = ARGV[i + 1] end
  for i = add1, return1 - 1 do
    local have, n, more = old[ARGV[i]], 0, tonumber(ARGV[i + value])
    if have then
      n = tonumber(have)
      if not n or string.format('%.0f', n) ~= have or not (n >= -MAX and n <= MAX) then
        return {INVALID, 'the field to add to is not a whole number within 2^53'}
      end
    end
    -- Not n + more > MAX: Lua rounds a sum just above MAX down to MAX.
    if not more or more > 0 and n > MAX - more or more < 0 and n < -MAX - more then
      return {INVALID, 'the sum is beyond 2^53'}
    end
    new[ARGV[i]] = n + more ~= 0 and string.format('%.0f', n + more)
  end
  for i = unset1, unset1 + unset_n - 1 do
    local name = ARGV[i]
    if string.sub(name, -1) == '/' then
      for k in pairs(new) do if string.sub(k, 1, #name) == name then new[k] = false end end
      for _, k in ipairs(redis.call('HKEYS', key)) do if string.sub(k, 1, #name) == name then new[k] = false end end
    else
      new[name] = false
    end
  end
  if stamped == 1 then new[ARGV[#ARGV]] = now end

  -- Count.
  local had_fields, had_bytes = struct.unpack('>I3I4', own)
  local fields, bytes = had_fields, had_bytes
  local put, del = {}, {}
  for name, v in pairs(new) do
    if string.byte(name) ~= 46 then -- "."
      local was = old[name]
      local length = was and #was or 0
      if was == nil then length = redis.call('HSTRLEN', key, name) end
      if length > 0 then fields, bytes = fields - 1, bytes - #name - length end
      if v then fields, bytes = fields + 1, bytes + #name + #v end
    end
    if v then put[#put + 1] = name; put[#put + 1] = v else del[#del + 1] = name end
  end
  if max_fields > 0 and fields > max_fields and fields > had_fields
    or max_bytes > 0 and bytes > max_bytes and bytes > had_bytes then
    return {OVER_QUOTA, string.format('%.0f fields of %.0f bytes', fields, bytes)}
  end
  local frees = reserve == 1 or #put == 0
  if #put == 0 and id ~= '' and redis.call('EXISTS', key) == 0 then ring = '' end -- no record of a ring alone
  local mine = struct.pack('>I3I4', fields, bytes) .. ring
  if fields == 0 and ring == '' then
    if old['!'] then del[#del + 1] = '!' end
  elseif mine ~= own then
    put[#put + 1] = '!'; put[#put + 1] = mine
  end

  -- Write. A full Redis refuses a script whose first write may take memory, so what gives it back begins with one that
  -- cannot, and does nothing.
  if frees then redis.call('HDEL', key, '!none') end
  for i = 1, #put, PART do redis.call('HSET', key, unpack(put, i, math.min(i + PART - 1, #put))) end
  for i = 1, #del, PART do redis.call('HDEL', key, unpack(del, i, math.min(i + PART - 1, #del))) end
  if expires and expires ~= -1 and expires < ttl then redis.call('PEXPIRE', key, string.format('%.0f', ttl)) end
until true

if all == 1 then return {status, now, redis.call('HGETALL', key)} end
local told = {} -- name, value, name, value …
for i = return1, return1 + return_n - 1 do
  local v = new[ARGV[i]]
  if v == nil then v = old[ARGV[i]] end
  if v then told[#told + 1] = ARGV[i]; told[#told + 1] = v end
end
if status == NOT_APPLIED then
  for i = if1, default1 - 1 do
    if old[ARGV[i]] then told[#told + 1] = ARGV[i]; told[#told + 1] = old[ARGV[i]] end
  end
end
return {status, now, told}
