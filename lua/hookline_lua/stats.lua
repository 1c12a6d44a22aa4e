#!lua flags=no-writes
-- What a partition holds, one page of its registry after the other: per key and status how many, and the first score;
-- the counts of a key. Or with `weigh`, about how many bytes each of these keys takes.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: clock index

local PAGE = 200

-- The items of a key, by a few of them from all over the order of sortFields, and that order itself.
local function weigh(key)
  local name = index.name(key, '')
  local count, sampled = index.ask('ZCARD', name) or 0, 0
  local samples = math.min(count, request.samples)
  for sample = 1, samples do
    local place = math.floor((sample - 0.5) * count / samples)
    local sort = (index.ask('ZRANGE', name, place, place) or {})[1] or ''
    sampled = sampled + (index.ask('MEMORY', 'USAGE', partition .. ':i:' .. key .. ':' .. sort) or 0)
  end
  return count == 0 and 0 or math.floor(sampled * count / samples) + (index.ask('MEMORY', 'USAGE', name) or 0)
end

return function()
  if request.weigh then
    local bytes = {}
    for place, key in ipairs(request.weigh) do
      bytes[place] = weigh(key)
    end
    return cmsgpack.pack(bytes)
  end

  local page = index.ask('SSCAN', index.registry(request.prefix), request.cursor, 'COUNT', PAGE) or { '0', {} }
  local rows, counts = {}, {}
  for _, entry in ipairs(page[2]) do
    local key, status = string.match(entry, '^(%Z*)%z(.*)$')
    -- What names nothing is hookline doctor's to tell.
    if key and string.sub(key, 1, #request.prefix) == request.prefix then
      local name = index.name(key, status)
      local first = status ~= '' and index.ask('ZRANGE', name, 0, 0, 'WITHSCORES') or {}
      table.insert(rows, { key, status, index.ask('ZCARD', name) or 0, first[2] or false })
      if status == '' then
        counts[key] = index.ask('HGETALL', partition .. ':n:' .. key)
      end
    end
  end
  return cmsgpack.pack({ clock.ms, rows, counts, page[1] })
end
