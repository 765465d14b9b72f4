-- One update of one record: KEYS[1] is its hash; script.go writes ARGV, reply.go reads the answer.
--
-- All is read and checked before the first write, because Redis keeps what a failing script has written. After it
-- nothing can fail: Redis looks at its memory only until then.
--
-- Every write waits for this. Calls of Redis cost the most, then arguments, tables that grow, strings and globals. So
-- fields are known by their place and not by a table of names.
--
-- The field "!" is the store's own. It has at
-- most 62 bytes, because a value of more than 64 would take the hash out of its compact encoding: in 2 bytes the number of
-- fields, in 4 the bytes of their names and values, both without fields whose names begin with "."; then the ring, IDs of
-- the last updates with Once, up to seven of 8 bytes each, the latest first. An ID begins with its time in 6 bytes.

local RARE = 1
local APPLIED, NOT_APPLIED, STALE, OVER_QUOTA, INVALID = 1, 0, -1, -2, -3
local MAX = 9007199254740992 -- 2^53: up to here Lua's numbers are exact
local INT = 2147483647       -- up to here %d is right everywhere, and several times as fast as %.0f
local PART = 4000            -- arguments of one command; Lua's stack bounds them
local HIGH = 4294967296      -- a time is read as 2 and 4 bytes: a 32-bit Redis would cut 6 off

local call, decode, sub, byte, format = redis.call, struct.unpack, string.sub, string.byte, string.format
local unpack = unpack or table.unpack -- Lua 5.1, 5.4
local key, head = KEYS[1], ARGV[1]

-- From byte 9 on, one each; where one is not enough, wide says so.
local way, wide, mode, absent_n, if_n, default_n, add_n, read_n, set_n, unset_n, return_n, place1 = byte(head, 9, 20)
local LIFE, QUOTA, at = 21, 29, 37 -- are looked up when needed

if wide == 1 then absent_n, if_n, default_n, add_n, read_n, set_n, unset_n, return_n, place1, at = decode('>I4I4I4I4I4I4I4I4I4', head, at) end
local drop, reserve, all, birth, reread, timed, stamped, prefix_n, not_after = 0, 0, 0, 0, 0, 0, 0, 0, 0
if way == RARE then drop, reserve, all, birth, reread, timed, stamped, prefix_n, not_after, at = decode('>BBBBBBBI4d', head, at) end

-- args holds the names of the fields to read, read_n of them: those that must be absent, those in If, Default and Add, and
-- others. The place of a field is its number among these. Then the values of If, Default and Add; the names and values of
-- Set; the names in Unset; the prefixes in UnsetPrefix; Stamp; for Return the places, 4 bytes each, unless it is one field, or
-- with reread the names.
local args, names = ARGV, 1
local met = absent_n + if_n
local defaulted = met + default_n
local added = defaulted + add_n
local values = names + read_n - absent_n -- of the field with a place: args[values + place]
local set = values + added
local unset = set + 2 * set_n
local prefix = unset + unset_n
local returned = prefix + prefix_n + stamped

-- Read. old[place + 1] is a field's value; false: absent.
local old
local EXTEND, KEEP, CONFIRM = 1, 2, 4 -- modes: of the TTL, and whether replicas are to confirm the answer
local confirm = mode >= CONFIRM
if confirm then mode = mode - CONFIRM end
local expires = mode == EXTEND and call('PTTL', key) -- -1: never, -2: no record
if expires == -2 then
  old = {false, false, false, false, false, false}
  for place = 6, read_n do old[place + 1] = false end
else
  old = call('HMGET', key, '!', unpack(args, names + 1, names + (read_n < PART and read_n or PART)))
  for first = PART + 1, read_n, PART do
    local part = call('HMGET', key, unpack(args, names + first, names + math.min(read_n, first + PART - 1)))
    for i = 1, #part do old[first + i] = part[i] end
  end
  if mode == KEEP and not old[1] then expires = call('PTTL', key) end -- a record without data has no field of ours
end
local own = old[1] or '\0\0\0\0\0\0'
local now
if timed == 1 then
  local t = call('TIME')
  now = t[1] .. format('%03d', math.floor(tonumber(t[2]) / 1000))
end

local status, wrote = APPLIED, false
repeat -- a break goes to the answer

  -- Did create.lua make the record for this very update, and its reply was lost? No other update has these defaults.
  if birth == 1 and default_n > 0 then
    local same = true
    for place = met + 1, defaulted do
      if old[place + 1] ~= args[values + place] then same = false end
    end
    if same then break end
  end

  -- Was it applied before? The ring's oldest ID is the one that leaves it. So an ID newer than that was never in it and
  -- left; of any other nobody knows. Times are numbers: < of strings follows the locale.
  local id, younger = sub(head, 1, 8), 6 -- its place in the ring is behind those that are younger
  if id == '\0\0\0\0\0\0\0\0' then
    id = ''
  else
    local high, low = decode('>I2I4', id)
    local time, same, other = high * HIGH + low, false, 0
    while younger < #own do -- not once, mostly
      high, low = decode('>I2I4', own, younger + 1)
      other = high * HIGH + low
      if other < time then break end
      if sub(own, younger + 1, younger + 8) == id then same = true end
      younger = younger + 8
    end
    if same then break end
    if younger == 62 then return {STALE, format('%.0f', other)} end
  end

  if not_after > 0 and tonumber(now) > not_after then status = NOT_APPLIED end
  for place = 1, absent_n do
    if old[place + 1] then status = NOT_APPLIED end
  end
  for place = absent_n + 1, met do
    if old[place + 1] ~= args[values + place] then status = NOT_APPLIED end
  end
  if status == NOT_APPLIED then break end
  if drop == 1 then
    wrote = call('DEL', key) == 1
    all, return_n = 0, 0
    break
  end

  -- Plan: put holds n names and values in turn. And count.
  local put, n, del = {false, false, false, false, false, false}, 0, nil
  local had_fields, had_bytes = decode('>I2I4', own)
  local fields, bytes = had_fields, had_bytes
  for place = met + 1, defaulted do
    if not old[place + 1] then
      local name, v = args[names + place], args[values + place]
      put[n + 1], put[n + 2] = name, v
      n = n + 2
      old[place + 1] = v
      if byte(name) ~= 46 then fields, bytes = fields + 1, bytes + #name + #v end -- "."
    end
  end
  for place = defaulted + 1, added do
    local name, have, more, sum, v = args[names + place], old[place + 1], tonumber(args[values + place]), 0, false
    if have then
      sum = tonumber(have)
      if not sum or not (sum >= -MAX and sum <= MAX) or sum % 1 ~= 0 or format(sum >= -INT and sum <= INT and '%d' or '%.0f', sum) ~= have then
        return {INVALID, 'the field to add to is not a whole number within 2^53'}
      end
    end
    -- Not sum + more > MAX: Lua rounds a sum just above MAX down to MAX.
    if not more or more > 0 and sum > MAX - more or more < 0 and sum < -MAX - more then
      return {INVALID, 'the sum is beyond 2^53'}
    end
    sum = sum + more
    if sum ~= 0 then
      v = format(sum >= -INT and sum <= INT and '%d' or '%.0f', sum)
      put[n + 1], put[n + 2] = name, v
      n = n + 2
    elseif have then
      del = del or {}
      del[#del + 1] = name
    end
    if byte(name) ~= 46 then
      if have then fields, bytes = fields - 1, bytes - #name - #have end
      if v then fields, bytes = fields + 1, bytes + #name + #v end
    end
    old[place + 1] = v
  end
  for i = set + 1, unset, 2 do
    local name, v = args[i], args[i + 1]
    put[n + 1], put[n + 2] = name, v
    n = n + 2
    if byte(name) ~= 46 then
      local length = expires ~= -2 and call('HSTRLEN', key, name) or 0
      if length == 0 then fields, bytes = fields + 1, bytes + #name end
      bytes = bytes + #v - length
    end
  end
  if unset_n + prefix_n > 0 then
    local gone = {}
    del = del or {}
    local function remove(name)
      if gone[name] then return end
      gone[name] = true
      del[#del + 1] = name
      local length = byte(name) ~= 46 and call('HSTRLEN', key, name) or 0
      if length > 0 then fields, bytes = fields - 1, bytes - #name - length end
    end
    for i = unset + 1, prefix do remove(args[i]) end
    for _, name in ipairs(prefix_n > 0 and call('HKEYS', key) or {}) do
      for i = prefix + 1, prefix + prefix_n do
        if name ~= '!' and sub(name, 1, #args[i]) == args[i] then remove(name) end
      end
    end
  end
  if stamped == 1 then
    local name = args[returned]
    put[n + 1], put[n + 2] = name, now
    n = n + 2
    if byte(name) ~= 46 then
      local length = call('HSTRLEN', key, name)
      if length == 0 then fields, bytes = fields + 1, bytes + #name end
      bytes = bytes + #now - length
    end
  end
  local noted = old[1] or n > 0 or del or id ~= '' -- what only lives on needs no field of ours
  if fields > had_fields or bytes > had_bytes then
    local max_fields, max_bytes = decode('>I4I4', head, QUOTA)
    if max_fields > 0 and fields > max_fields and fields > had_fields
      or max_bytes > 0 and bytes > max_bytes and bytes > had_bytes then
      return {OVER_QUOTA, format('%d fields of %d bytes', fields, bytes)}
    end
  end

  -- Our own field.
  local frees = reserve == 1 or n == 0
  if fields > 65535 then fields = 65535 elseif fields < 0 then fields = 0 end -- beyond, nobody counts
  if bytes < 0 then bytes = 0 end
  local mine = struct.pack('>I2I4', fields, bytes)
  if younger > 6 then mine = mine .. sub(own, 7, younger) end
  if id ~= '' and (n > 0 or #own > 6 or call('EXISTS', key) == 1) then mine = mine .. id end -- no record of a ring alone
  mine = mine .. sub(own, younger + 1, id == '' and 62 or 54)
  if fields == 0 and #mine == 6 then
    if old[1] then
      del = del or {}
      del[#del + 1] = '!'
    end
  elseif mine ~= own and noted then
    put[n + 1], put[n + 2] = '!', mine
    n = n + 2
  end

  -- Write. A full Redis refuses a script whose first write may take memory, so what gives it back begins with one that
  -- cannot, and does nothing.
  if frees then call('HDEL', key, '!none') end
  for i = 1, n, PART do call('HSET', key, unpack(put, i, n < PART and n or math.min(i + PART - 1, n))) end
  wrote = n > 0
  if del then
    for i = 1, #del, PART do wrote = call('HDEL', key, unpack(del, i, math.min(i + PART - 1, #del))) > 0 or wrote end
  end
  if expires and (expires == -2 or expires ~= -1 and mode == EXTEND) then
    local ttl = decode('>d', head, LIFE)
    if expires < ttl then wrote = call('PEXPIRE', key, format('%.0f', ttl)) == 1 or wrote end
  end
until true

-- The answer may rest on what others wrote, and since Redis 7.2 WAIT waits for its own connection's last write only. So where
-- replicas are to confirm it and nothing was written, something is that changes nothing. A full Redis: as above.
if confirm and not wrote then
  call('HDEL', key, '!none')
  call('HSET', key, old[1] and '!' or '!none', old[1] or '')
  if not old[1] then call('HDEL', key, '!none') end
end

-- Mostly 1, or the value that was asked for, or '' for none. Else a table: the values of Return; if the update was not
-- applied, those of If too; the time if it was asked for.
if status == APPLIED and way ~= RARE then
  if return_n == 0 then return APPLIED end
  if place1 > 0 then return old[place1 + 1] or '' end
end
if all == 1 then return {status, call('HGETALL', key), now} end
local answer = {status}
for i = 1, return_n do
  if reread == 1 then
    answer[i + 1] = call('HMGET', key, args[returned + i])[1]
  else
    answer[i + 1] = old[(place1 > 0 and place1 or decode('>I4', args[returned + 1], 4 * i - 3)) + 1]
  end
end
if status == NOT_APPLIED then
  for place = 1, met do answer[#answer + 1] = old[place + 1] end
end
answer[#answer + 1] = now
return answer
