-- Makes any update of one record. create.lua and write.lua make those that are most frequent.
--
-- KEYS[1]   the record, a hash
-- ARGV[1]   operation ID, 8 bytes, as in write.lua; "" if the update may be applied more than once
-- ARGV[2…]  what to do, each a word with its arguments:
--
--           if NAME VALUE       only if the field holds this value; "": only if it is absent
--           notafter TIME       only if it is not later
--           drop 1              remove the record, and do nothing else
--           default NAME VALUE  set the field if it is absent
--           set NAME VALUE      set the field
--           add NAME NUMBER     add to the field, a whole number; remove it if the sum is 0
--           unset NAME          remove the field
--           unsetprefix PREFIX  remove all fields whose names begin so
--           stamp NAME          set the field to the time
--           maxfields NUMBER    the most fields that the record may have, or as many as it had
--           maxbytes NUMBER     the most bytes of their names and values, or as many as it had
--           ttl MILLISECONDS    the record lives at least so long from now
--           newttl MILLISECONDS the same, if the update creates the record
--           return NAME         return the field
--           returnall 1         return all fields
--           reserve 1           do it even if Redis is full
--           new 1               only this update has these defaults; it was perhaps sent before,
--                               to create.lua
--           confirm 1           write something in any case, so that WAIT has a write to wait for
--           clock TIME          the time, where Redis refuses TIME in scripts
--
--           Each word comes once at most, but for if, default, set, add, unset, unsetprefix and
--           return. A TIME is in Unix milliseconds. None of the steps from default to stamp changes
--           the same field as another.
--
-- Returns
--
--   {1, name, value, ...}  done; the fields to return as they are now
--   {0, name, value, ...}  not done, as a condition does not hold: the fields to return and those
--                          in "if"
--   {-1, time}, {-2, message}, {-3, message}, as write.lua
--   {-4, message}          not done, as Redis refuses TIME in scripts
--
-- With "notafter" or "stamp" one of the names is "!now", and its value the time.
--
-- The field "!" is described in write.lua. Redis does not undo what a failing script has written,
-- so all is read and checked before the first write.

local APPLIED, NOT_APPLIED, STALE, OVER_QUOTA, INVALID, NO_CLOCK = 1, 0, -1, -2, -3, -4
local MAX = 9007199254740992 -- 2^53: up to here Lua's numbers are exact
local PART = 1000 -- arguments of one call: Lua's stack bounds them

local call, floor = redis.call, math.floor
local byte, char, format, sub = string.byte, string.char, string.format, string.sub
local unpack = unpack or table.unpack -- Lua 5.1; Lua 5.4
local key, id = KEYS[1], ARGV[1]

local values = {['if'] = {}, default = {}, set = {}, add = {}} -- by name
local lists = {unset = {}, unsetprefix = {}, ['return'] = {}}
local options = {}
local next_word = 2
while next_word <= #ARGV do
  local word, first, second = ARGV[next_word], ARGV[next_word + 1], ARGV[next_word + 2]
  if values[word] then
    values[word][first] = second
    next_word = next_word + 3
  else
    if lists[word] then table.insert(lists[word], first) else options[word] = first end
    next_word = next_word + 2
  end
end

local now = options.clock
if not now and (options.stamp or options.notafter) then
  local t = redis.pcall('TIME')
  if t.err then return {NO_CLOCK, t.err} end
  now = t[1] .. format('%03d', floor(t[2] / 1000))
end

-- Read. old[name] is the value of each field that the update names; false: it is absent.
local names, old = {'!', options.stamp}, {}
for _, of in pairs(values) do
  for name in pairs(of) do table.insert(names, name) end
end
for _, name in ipairs(lists.unset) do table.insert(names, name) end
for _, name in ipairs(lists['return']) do table.insert(names, name) end
if #lists.unsetprefix > 0 then
  for _, name in ipairs(call('HKEYS', key)) do
    for _, prefix in ipairs(lists.unsetprefix) do
      if name ~= '!' and sub(name, 1, #prefix) == prefix then
        table.insert(names, name)
        table.insert(lists.unset, name)
      end
    end
  end
end
for first = 1, #names, PART do
  local last = math.min(#names, first + PART - 1)
  local read = call('HMGET', key, unpack(names, first, last))
  for i = 1, #read do old[names[first + i - 1]] = read[i] end
end

-- answer is what the script returns for the fields in "return" and those in the table also.
-- new[name] is what an update made of a field; false: it was removed.
local function answer(status, new, also)
  local result = {status}
  local function put(name, value)
    if value then result[#result + 1], result[#result + 2] = name, value end
  end
  put('!now', now)
  if options.returnall then
    local all = call('HGETALL', key)
    for i = 1, #all, 2 do put(all[i], all[i + 1]) end
    return result
  end
  local function put_field(name)
    if new[name] ~= nil then put(name, new[name]) else put(name, old[name]) end
  end
  for _, name in ipairs(lists['return']) do put_field(name) end
  for name in pairs(also) do put_field(name) end
  return result
end

-- time_of reads the time of the operation ID that begins at this byte of s.
local function time_of(s, at)
  local a, b, c, d, e, f = byte(s, at, at + 5)
  return ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f
end

local function decimal(n) return format('%.0f', n) end

-- update returns the answer, and whether anything was written.
local function update()
  local own = old['!'] or '\0\0\0\0\0\0'

  -- Did create.lua make the record for this very update, and the reply was lost?
  if options.new and next(values.default) then
    local same = true
    for name, value in pairs(values.default) do same = same and old[name] == value end
    if same then return answer(APPLIED, {}, {}) end
  end

  -- Was this operation applied before? See write.lua.
  local at = 7
  if id ~= '' then
    local time = time_of(id, 1)
    while at < #own do
      local other = time_of(own, at)
      if other < time then break end
      if sub(own, at, at + 7) == id then return answer(APPLIED, {}, {}) end
      at = at + 8
    end
    if at == 63 then return {STALE, decimal(time_of(own, 7))} end
  end

  local holds = not options.notafter or tonumber(now) <= tonumber(options.notafter)
  for name, value in pairs(values['if']) do holds = holds and (old[name] or '') == value end
  if not holds then return answer(NOT_APPLIED, {}, values['if']) end
  if options.drop then return {APPLIED, now and '!now', now}, call('DEL', key) == 1 end

  local new = {}
  for name, value in pairs(values.default) do
    if not old[name] then new[name] = value end
  end
  for name, value in pairs(values.set) do new[name] = value end
  for name, operand in pairs(values.add) do
    local had = old[name]
    local sum, amount = tonumber(had or 0), tonumber(operand)
    local is_whole = sum and sum >= -MAX and sum <= MAX
      and (not had or decimal(sum + 0) == had) -- + 0 makes 0 of -0
    if not is_whole then
      return {INVALID, 'the field to add to is not a whole number within 2^53'}
    end
    if not amount or amount > 0 and sum > MAX - amount
      or amount < 0 and sum < -MAX - amount then
      return {INVALID, 'the sum is beyond 2^53'}
    end
    new[name] = sum + amount ~= 0 and decimal(sum + amount)
  end
  for _, name in ipairs(lists.unset) do new[name] = false end
  if options.stamp then new[options.stamp] = now end

  local a, b, c, d, e, f = byte(own, 1, 6)
  local had_fields, had_bytes = a * 256 + b, ((c * 256 + d) * 256 + e) * 256 + f
  local fields, bytes = had_fields, had_bytes
  for name, value in pairs(new) do
    if sub(name, 1, 1) ~= '.' then
      if old[name] then fields, bytes = fields - 1, bytes - #name - #old[name] end
      if value then fields, bytes = fields + 1, bytes + #name + #value end
    end
  end
  local max_fields, max_bytes = tonumber(options.maxfields), tonumber(options.maxbytes)
  if max_fields and fields > max_fields and fields > had_fields
    or max_bytes and bytes > max_bytes and bytes > had_bytes then
    return {OVER_QUOTA, format('%d fields of %d bytes', fields, bytes)}
  end

  local puts, removals = {}, {}
  for name, value in pairs(new) do
    if value then
      puts[#puts + 1], puts[#puts + 2] = name, value
    elseif old[name] then
      removals[#removals + 1] = name
    end
  end
  local ttl = options.ttl or options.newttl
  local left = ttl and call('PTTL', key) -- -1: it lives for ever; -2: there is no record
  local frees = options.reserve or #puts == 0
  -- Operations alone make no record.
  if #puts > 0 or #removals > 0 or id ~= '' and call('EXISTS', key) == 1 then
    -- A record with more than 65535 fields is not counted right.
    if fields > 65535 then fields = 65535 elseif fields < 0 then fields = 0 end
    if bytes < 0 then bytes = 0 end
    own = char(floor(fields / 256), fields % 256,
      floor(bytes / 16777216) % 256, floor(bytes / 65536) % 256,
      floor(bytes / 256) % 256, bytes % 256)
      .. sub(own, 7, at - 1) .. id .. sub(own, at, id == '' and 62 or 54)
    if fields > 0 or #own > 6 then
      puts[#puts + 1], puts[#puts + 2] = '!', own
    elseif old['!'] then
      removals[#removals + 1] = '!'
    end
  end

  -- A full Redis refuses a script whose first write may take memory. So what gives memory back
  -- begins with a write that cannot take any, and that does nothing.
  if frees then call('HDEL', key, '!none') end
  for first = 1, #puts, PART do
    call('HSET', key, unpack(puts, first, math.min(#puts, first + PART - 1)))
  end
  for first = 1, #removals, PART do
    call('HDEL', key, unpack(removals, first, math.min(#removals, first + PART - 1)))
  end
  local extended = (left == -2 or options.ttl and left >= 0 and left < tonumber(ttl))
    and call('PEXPIRE', key, ttl) == 1
  return answer(APPLIED, new, {}), #puts > 0 or #removals > 0 or extended
end

local result, wrote = update()

-- The answer may rest on what others wrote, but since Redis 7.2 WAIT waits for the last write of
-- its own connection only. So if nothing was written, something is that changes nothing. A full
-- Redis: see above.
if options.confirm and result[1] >= 0 and not wrote then
  call('HDEL', key, '!none')
  if old['!'] then
    call('HSET', key, '!', old['!'])
  else
    call('HSET', key, '!none', '')
    call('HDEL', key, '!none')
  end
end
return result
