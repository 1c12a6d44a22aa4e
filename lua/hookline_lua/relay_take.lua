#!lua flags=allow-oom
-- Take events from the outbox for one relay: first what a lost relay (or, at its start, itself) left unacknowledged, then new ones.
-- keys: partition
-- args: now_ms:int request:msgpack

local outbox = partition .. ':outbox'
local consumer, limit, idle_ms = request.consumer, request.limit, request.idle_ms

local function take_over(count)
  return redis.pcall('XAUTOCLAIM', outbox, 'relay', consumer, idle_ms, '0-0', 'COUNT', count)
end

-- A group lost with the stream begins again at the first event that is still there.
local stale, created = take_over(limit), false
if stale.err and string.find(stale.err, 'NOGROUP', 1, true) then
  redis.call('XGROUP', 'CREATE', outbox, 'relay', '0', 'MKSTREAM')
  stale, created = take_over(limit), true
end
if stale.err then
  return cmsgpack.pack({ created = false, corrupt = true, events = {} })
end

local taken = {}
local function note(entries)
  for _, entry in ipairs(entries) do
    if entry[2] then
      taken[#taken + 1] = { entry[1], entry[2] }
    end
  end
end

note(stale[2])
if request.own and #taken < limit then
  local own = redis.call('XREADGROUP', 'GROUP', 'relay', consumer, 'COUNT', limit - #taken, 'STREAMS', outbox, '0')
  note(own and own[1] and own[1][2] or {})
end
if #taken < limit then
  local new = redis.call('XREADGROUP', 'GROUP', 'relay', consumer, 'COUNT', limit - #taken, 'STREAMS', outbox, '>')
  note(new and new[1] and new[1][2] or {})
end
return cmsgpack.pack({ created = created, corrupt = false, events = taken })
