#!lua flags=no-writes
-- What a partition holds: per key and status how many, and the first score; the outbox's length; the counts of a key.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: clock

-- A key of a wrong type counts nothing here; the verbs that need it say `corrupt`.
local function ask(...)
  local answer = redis.pcall(...)
  return not (type(answer) == 'table' and answer.err) and answer or nil
end

local rows, counts = {}, {}
for _, entry in ipairs(ask('SMEMBERS', partition .. ':r') or {}) do
  local key, status = string.match(entry, '^(%Z*)%z(.*)$')
  if string.sub(key, 1, #request.prefix) == request.prefix then
    if status == '' then
      table.insert(rows, { key, '', ask('ZCARD', partition .. ':k:' .. key) or 0, false })
      counts[key] = ask('HGETALL', partition .. ':n:' .. key)
    else
      local name = partition .. ':s:' .. key .. ':' .. status
      local first = ask('ZRANGE', name, 0, 0, 'WITHSCORES') or {}
      table.insert(rows, { key, status, ask('ZCARD', name) or 0, first[2] or false })
    end
  end
end
return cmsgpack.pack({ clock.ms, rows, counts, ask('XLEN', partition .. ':outbox') or 0 })
