-- Waking those who wait, best effort and last: what is lost costs a waiter its poll interval, never a change.

local wake = {}

function wake.reset()
  wake.passed_on = {}
end

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

-- The bell of a key: who takes it off (BZPOPMIN) has its claim right behind. So of those who wait that way one claims, in
-- the same turn of the store as the write that rang.
local function bell(key)
  return partition .. ':ready:' .. key
end

function wake.ring(key)
  if string.sub(key, 1, 9) ~= 'hookline.' then
    redis.pcall('ZADD', bell(key), 0, '')
  end
end

-- Nothing of the key is in line any more: who comes to wait must not be let through for nothing.
function wake.hush(key)
  redis.pcall('ZREM', bell(key), '')
end

-- One of those who wait is through: what it leaves in line is for the next.
function wake.pass_on(key)
  wake.passed_on[key] = true
end

-- The end of a call. `ready` has the keys for which something came in line where nothing was, or is due earlier than
-- before, and in which of the two sets.
function wake.flush(ready)
  for key, label in pairs(ready) do
    wake.say('ready:' .. key)
    if label == 'scheduled' then
      wake.ring(key)
    else
      wake.passed_on[key] = true
    end
  end
  for key in pairs(wake.passed_on) do
    -- A claim of the same call may have taken all that there was.
    if redis.pcall('EXISTS', partition .. ':s:' .. key .. ':not_started') == 1 then
      wake.ring(key)
    end
  end
end
