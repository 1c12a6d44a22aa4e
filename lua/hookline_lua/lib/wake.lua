-- Waking those who wait, best effort and last: what is lost costs a waiter its poll interval, never a change.

local wake = {}

-- Say that a topic is worth a look: `ready:<key>` or `outbox`.
function wake.say(topic)
  redis.pcall('SPUBLISH', partition .. ':wake', topic)
end

-- Tell those who wait for single items which ones have changed, by their names in the store.
function wake.changed(ids)
  if #ids > 0 then
    redis.pcall('SPUBLISH', partition .. ':changed', table.concat(ids, '\0'))
  end
end

-- The bell of a key: who takes it off (BZPOPMIN) has its claim right behind. So of those who wait that way one claims, the
-- one that has waited longest, in the same turn of the store as the write that rang.
local function bell(key)
  return partition .. ':ready:' .. key
end

function wake.ring(key)
  if string.sub(key, 1, 9) ~= 'hookline.' then
    redis.pcall('ZADD', bell(key), 0, '')
  end
end

-- Nothing of the key is in line any more: who comes to wait must not be woken for nothing.
function wake.hush(key)
  redis.pcall('ZREM', bell(key), '')
end

function wake.ready(keys)
  for _, key in ipairs(keys) do
    wake.say('ready:' .. key)
    wake.ring(key)
  end
end
