-- The sorted sets that follow the items: by status, and by sortField.
-- use: clock

local index = { size = {}, epoch_ms = 1704067200000 }

function index.status_set(key, status)
  return partition .. ':s:' .. key .. ':' .. status
end

function index.sort_set(key)
  return partition .. ':k:' .. key
end

-- Where an item stands in the set of its status. `place` orders what became ready in the same millisecond.
function index.score(fields, place)
  local status = fields.s
  if status == 'not_started' then
    local since = math.max(0, tonumber(fields.at or fields.ua) - index.epoch_ms)
    return (9 - tonumber(fields.p or 5)) * 9e14 + since * 1000 + math.min(999, place or 0)
  elseif status == 'scheduled' then
    return tonumber(fields.at)
  elseif status == 'started' then
    return tonumber(fields.lu or 0)
  end
  return tonumber(fields.ua)
end

-- Whether a key is of the type we write there (or absent); remembers its size. One call per key and script run.
function index.sound(name, command)
  local size = index.size[name]
  if size == nil then
    size = redis.pcall(command, name)
    if type(size) == 'table' then
      size = false
    end
    index.size[name] = size
  end
  return size ~= false
end

function index.sound_for(key, status)
  return index.sound(index.sort_set(key), 'ZCARD')
    and index.sound(partition .. ':r', 'SCARD')
    and (not status or index.sound(index.status_set(key, status), 'ZCARD'))
end
