-- Wake messages, best effort and last: a lost one costs a waiter its poll interval, never a change.

local wake = {}

-- Say that a topic is worth a look: `ready:<key>` or `outbox`.
function wake.say(topic)
  redis.pcall('SPUBLISH', partition .. ':wake', topic)
end

function wake.ready(keys)
  for _, key in ipairs(keys) do
    wake.say('ready:' .. key)
  end
end
