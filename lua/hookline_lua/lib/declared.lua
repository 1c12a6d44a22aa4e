-- Declared indexes: for each field that a key's settings name, a sorted set of the items which have it. Numbers and times
-- are scores; of a string the member begins with it.
-- use: settings index value

local declared = {}

function declared.reset()
  declared.places = {}
end

local STRING_MAX = 256
-- A NUL ends the string within a member, so what is left of it must not hold one; the order of the bytes stays.
local ESCAPES = { ['\0'] = '\1\1', ['\1'] = '\1\2' }

-- The places of a key's declared indexes, each with its `kind` and the `label` of its set.
function declared.of(key)
  local places = declared.places[key]
  if not places then
    places = {}
    for field, packed in pairs(settings.of(key) or {}) do
      if string.sub(field, 1, 2) == 'x:' then
        local place = cmsgpack.unpack(packed)
        place.label = '\0' .. string.sub(field, 3)
        places[#places + 1] = place
      end
    end
    declared.places[key] = places
  end
  return places
end

-- Whether all of a key's declared indexes can be written.
function declared.sound(key)
  for _, place in ipairs(declared.of(key)) do
    if not index.set(key, place.label).size then
      return false
    end
  end
  return true
end

-- Whether an index has all that it must: declared, of this kind if one is named, and built to its end.
function declared.complete(key, label, kind)
  for _, place in ipairs(declared.of(key)) do
    if place.label == label and place.kind == (kind or place.kind) then
      return redis.pcall('HEXISTS', partition .. ':builds', key .. label) == 0
    end
  end
  return false
end

-- Score and member of an item whose field holds `raw`; nil where that is no value of the index's kind.
function declared.entry(place, raw, sort)
  if not raw then
    return nil
  end
  local found = value.of(place, raw)
  if place.kind == 'string' then
    if type(found) ~= 'string' then
      return nil
    end
    return 0, string.gsub(string.sub(found, 1, STRING_MAX), '[%z\1]', ESCAPES) .. '\0' .. sort
  elseif place.kind == 'time' then
    found = value.instant(place, found)
  end
  if type(found) ~= 'number' then
    return nil
  end
  return found, sort
end

-- The sortField of a member.
function declared.sort_of(member)
  return string.match(member, '%z(.*)$') or member
end

-- Note the moves of an item from what the store has of it to what the view has; `before` holds what the store has (or
-- false) of what has changed.
function declared.move(record, before)
  for _, place in ipairs(declared.of(record.key)) do
    local after = record.exists and record.fields[place.field] or nil
    local old = nil
    if record.stored then
      old = before[place.field]
      if old == nil then
        old = record.fields[place.field]
      end
    end
    if (old or nil) ~= after then
      local old_score, old_member = declared.entry(place, old, record.sort)
      local score, member = declared.entry(place, after, record.sort)
      if old_member and old_member ~= member then
        index.remove(record.key, place.label, old_member)
      end
      if member and (member ~= old_member or score ~= old_score) then
        index.add(record.key, place.label, score, member)
      end
    end
  end
end
