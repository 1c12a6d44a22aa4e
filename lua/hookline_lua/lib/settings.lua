-- A key's settings, and whether the caller knows the current ones.

-- Beside what is known of each key: what holds where a key has no setting of its own; engine/hookline/keysettings.py
-- says the same.
local settings = {
  lock_ms = 600000,
  max_attempts = 10,
  length_max = 1 / 0,
  backoff = 'exponential 5000 3600000',
}

function settings.reset()
  settings.known = {}
end

-- The settings hash of a key as a table, empty where none were ever written; false where it is of a wrong type.
function settings.of(key)
  local found = settings.known[key]
  if found == nil then
    local flat = redis.pcall('HGETALL', partition .. ':cfg:' .. key)
    found = not flat.err and {}
    for i = 1, #flat, 2 do
      found[flat[i]] = flat[i + 1]
    end
    settings.known[key] = found
  end
  return found
end

-- One setting as a number: the key's own, else the default above.
function settings.number(key, name)
  return tonumber(settings.of(key)[name]) or settings[name]
end

-- A caller that plans by old settings could leave a hole in an index: it must plan again.
function settings.changed(operation)
  return (tonumber(settings.of(operation.key).generation) or 0) ~= (operation.generation or 0)
end

-- How long and how many items of a status are kept: ms and a count, each nil where there is no bound.
function settings.kept(key, status)
  local text = (settings.of(key) or {})['keep:' .. status]
  if not text then
    return nil, nil
  end
  local age, count = string.match(text, '^(%d*) (%d*)$')
  return tonumber(age), tonumber(count)
end
