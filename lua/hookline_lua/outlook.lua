#!lua flags=allow-cross-slot-keys,no-writes
-- What there is to do in each of some partitions of this node, and when, in ms: 0 where that is now, or where who does it is
-- told what is wrong; false for never. Of a `key`, to claim from it: true where it is paused. Without one, to sweep, to build indexes and, with
-- `rules`, to run those, of which more may be to be looked through; and before that, how many events wait in the outbox.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: clock index settings

local PAGE = 1000

-- The first of a sorted set's times: 0 where that has come, or the set is none.
local function first_of(name)
  local first = index.ask('ZRANGE', name, 0, 0, 'WITHSCORES')
  local ms = not first and 0 or tonumber(first[2])
  return ms and ms <= clock.ms and 0 or ms
end

local function claimable(key)
  settings.reset()
  local own = settings.of(key)
  if own and own.paused then
    return true
  elseif not own or index.probe('ZCARD', index.name(key, 'not_started')) ~= 0 then
    return 0
  end
  return clock.earlier(first_of(index.name(key, 'scheduled')), first_of(index.name(key, 'started'))) or false
end

-- Whether one of the engine's own keys, as far as they are on the first page, has something in line; and whether there are
-- more pages.
local function rules()
  if not request.rules then
    return false, false
  end
  local page = index.ask('SSCAN', partition .. ':r:hookline', '0', 'MATCH', '*\0not_started', 'COUNT', PAGE)
  return page and #page[2] > 0, page and page[1] ~= '0'
end

local function whole()
  local in_line, more = rules()
  local busy = in_line or index.probe('HLEN', partition .. ':builds') ~= 0
  return { index.probe('XLEN', partition .. ':outbox') or 1, busy and 0 or first_of(partition .. ':due') or false, more }
end

return function()
  local answers = {}
  for place, tag in ipairs(request.tags) do
    partition = tag
    redis.call('EXISTS', tag) -- fails where another node has it
    if request.key then
      answers[place] = claimable(request.key)
    else
      answers[place] = whole()
    end
  end
  return cmsgpack.pack(answers)
end
