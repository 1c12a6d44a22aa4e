#!lua flags=allow-oom
-- Take events from the outbox for one relay: with `own`, what it left unacknowledged before it was restarted, after
-- that id; otherwise what another relay left for longer than `idle_ms`, then new ones.
-- keys: partition
-- args: now_ms:int request:msgpack

local outbox = partition .. ':outbox'
local consumer, limit = request.consumer, request.limit

local taken = {}
local function note(entries)
  for _, entry in ipairs(entries) do
    if entry[2] then
      taken[#taken + 1] = { entry[1], entry[2] }
    end
  end
end

local function take_over()
  return redis.pcall('XAUTOCLAIM', outbox, 'relay', consumer, request.idle_ms, '0-0', 'COUNT', limit)
end

local function read(from)
  local streams = redis.call('XREADGROUP', 'GROUP', 'relay', consumer, 'COUNT', limit - #taken, 'STREAMS', outbox, from)
  note(streams and streams[1] and streams[1][2] or {})
end

-- A group lost with the stream begins again at the first event that is still there.
local stale, created = take_over(), false
if stale.err and string.find(stale.err, 'NOGROUP', 1, true) then
  redis.call('XGROUP', 'CREATE', outbox, 'relay', '0', 'MKSTREAM')
  stale, created = take_over(), true
end
if stale.err then
  return cmsgpack.pack({ created = false, corrupt = true, events = {} })
end

if request.own then
  read(request.own)
else
  note(stale[2])
  if #taken < limit then
    read('>')
  end
end
return cmsgpack.pack({ created = created, corrupt = false, events = taken })
