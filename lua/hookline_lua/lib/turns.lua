-- Turns: per item and URL of a trigger that is `ordered`, the events that have not ended yet, in the order of the changes.

local turns = {}

function turns.name(key, sort, url)
  return partition .. ':turns:' .. redis.sha1hex(table.concat({ key, sort, url }, '\0'))
end
