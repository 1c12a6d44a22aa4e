#!lua flags=allow-oom
-- Take events from the outbox for one relay, which shows by each call that it lives: with `own`, what it left
-- unacknowledged before it was restarted, after that id; otherwise new ones. With `look` first what others leave: a relay
-- that was not heard of for `dead_ms`, or whoever holds an event for longer than `idle_ms`.
-- keys: partition
-- args: now_ms:int request:msgpack

local FORGET_MS = 3600000

local outbox, consumer, limit, taken, gone

local function note(entries)
  for _, entry in ipairs(entries) do
    if entry and entry[2] then
      taken[#taken + 1] = { entry[1], entry[2] }
    end
  end
end

-- Returns whether there was anything.
local function read(from)
  local count = math.max(1, limit - #taken)
  local streams = redis.call('XREADGROUP', 'GROUP', 'relay', consumer, 'COUNT', count, 'STREAMS', outbox, from)
  note(streams and streams[1] and streams[1][2] or {})
  return streams and true
end

-- What it holds after the end of all ids: nothing, but it was heard of.
local function show_life()
  read('18446744073709551615-0')
end

-- As much of what a consumer holds as there is room for. Returns whether that is all.
local function take_from(name)
  local room = limit - #taken
  local ids = {}
  for _, pending in ipairs(redis.call('XPENDING', outbox, 'relay', '-', '+', room, name)) do
    ids[#ids + 1] = pending[1]
  end
  if #ids > 0 then
    note(redis.call('XCLAIM', outbox, 'relay', consumer, 0, unpack(ids)))
    gone[#gone + 1] = name
  end
  return #ids < room
end

local function facts_of(flat)
  local facts = {}
  for i = 1, #flat, 2 do
    facts[flat[i]] = flat[i + 1]
  end
  return facts
end

local function look()
  for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', outbox, 'relay')) do
    local other = facts_of(flat)
    if other.name ~= consumer and other.idle > request.dead_ms and limit > #taken then
      local emptied = other.pending == 0 or take_from(other.name)
      if emptied and other.idle > FORGET_MS then
        redis.call('XGROUP', 'DELCONSUMER', outbox, 'relay', other.name)
      end
    end
  end
  if limit > #taken then
    note(redis.call('XAUTOCLAIM', outbox, 'relay', consumer, request.idle_ms, '0-0', 'COUNT', limit - #taken)[2])
  end
end

return function()
  outbox, consumer, limit, taken, gone = partition .. ':outbox', request.consumer, request.limit, {}, {}
  -- A group lost with the stream begins again at the first event that is still there.
  local known, created = redis.pcall('XPENDING', outbox, 'relay'), false
  if known.err and string.find(known.err, 'NOGROUP', 1, true) then
    redis.call('XGROUP', 'CREATE', outbox, 'relay', '0', 'MKSTREAM')
    created = true
  elseif known.err then
    return cmsgpack.pack({ created = false, corrupt = true, events = {}, gone = {} })
  end

  if limit == 0 then
    show_life()
  elseif request.own then
    read(request.own)
  else
    if request.look then
      look()
    end
    -- To Redis before 7.2 who found no new event was not heard of.
    if #taken < limit and not read('>') then
      show_life()
    end
  end
  return cmsgpack.pack({ created = created, corrupt = false, events = taken, gone = gone })
end
