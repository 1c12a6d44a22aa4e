-- Wake messages, best effort and last: a lost one costs a waiter its poll interval, never a change.

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

function wake.ready(keys)
  for _, key in ipairs(keys) do
    wake.say('ready:' .. key)
  end
end
