#!lua flags=allow-cross-slot-keys,no-writes
-- What there is to do in each of some partitions of this node, and when, in ms: 0 where that is now, or where who does it is
-- told what is wrong; false for never. Of a `key`, to claim from it. Without one, to sweep, to build indexes and, with
-- `rules`, to run those; and before that, how many events wait in the outbox.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: clock index settings

-- Names of keys that are looked at for rules that are due; who has more has something to do.
local NAMES_MAX, PAGE = 10000, 1000

-- The first of a sorted set's times: 0 where that has come, or the set is none.
local function first_of(name)
  local first = index.ask('ZRANGE', name, 0, 0, 'WITHSCORES')
  local ms = not first and 0 or tonumber(first[2])
  return ms and ms <= clock.ms and 0 or ms
end

local function claimable(key)
  settings.reset()
  local own = settings.of(key)
  if not own or own.paused or index.probe('ZCARD', index.name(key, 'not_started')) ~= 0 then
    return 0
  end
  return clock.earlier(first_of(index.name(key, 'scheduled')), first_of(index.name(key, 'started'))) or false
end

-- Whether one of the engine's own keys has something in line.
local function has_rules()
  local cursor, looked = '0', 0
  repeat
    local page = index.ask('SSCAN', partition .. ':r:hookline', cursor, 'MATCH', '*\0not_started', 'COUNT', PAGE)
    if not page or #page[2] > 0 or looked > NAMES_MAX then
      return true
    end
    cursor, looked = page[1], looked + PAGE
  until cursor == '0'
  return false
end

local function next_ms()
  if index.probe('HLEN', partition .. ':builds') ~= 0 or (request.rules and has_rules()) then
    return 0
  end
  return first_of(partition .. ':due') or false
end

return function()
  local answers = {}
  for place, tag in ipairs(request.tags) do
    partition = tag
    redis.call('EXISTS', tag) -- fails where another node has it
    if request.key then
      answers[place] = claimable(request.key)
    else
      answers[place] = { index.probe('XLEN', tag .. ':outbox') or 1, next_ms() }
    end
  end
  return cmsgpack.pack(answers)
end
