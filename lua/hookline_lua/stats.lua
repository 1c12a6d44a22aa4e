#!lua flags=no-writes
-- What a partition holds: per key and status how many, and the first score; the outbox's length; the counts of a key.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: clock

local rows, counts = {}, {}
for _, entry in ipairs(redis.call('SMEMBERS', partition .. ':r')) do
  local key, status = string.match(entry, '^(%Z*)%z(.*)$')
  if string.sub(key, 1, #request.prefix) == request.prefix then
    if status == '' then
      table.insert(rows, { key, '', redis.call('ZCARD', partition .. ':k:' .. key), false })
      counts[key] = redis.call('HGETALL', partition .. ':n:' .. key)
    else
      local name = partition .. ':s:' .. key .. ':' .. status
      local first = redis.call('ZRANGE', name, 0, 0, 'WITHSCORES')
      table.insert(rows, { key, status, redis.call('ZCARD', name), first[2] or false })
    end
  end
end
return cmsgpack.pack({ clock.ms, rows, counts, redis.call('XLEN', partition .. ':outbox') })
