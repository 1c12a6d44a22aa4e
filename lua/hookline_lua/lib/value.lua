-- Values of items as filters and indexes read them. A place says where: `field` of the hash, and either `native` (one of
-- the engine's own, `number` or `word`) or a `path` into a user's value.
-- use: clock

local value = {}

-- cmsgpack reads the upper half of this type as negative numbers.
local UINT64 = 207

-- What was packed; nil where it can't be unpacked.
function value.unpack(raw)
  local fit, unpacked = pcall(cmsgpack.unpack, raw)
  if not fit then
    return nil
  elseif string.byte(raw) == UINT64 and unpacked < 0 then
    unpacked = unpacked + 2 ^ 64
  end
  return unpacked
end

-- What it costs to decode a value, in entries of about 3 us: lists and maps are made of many parts.
function value.cost(raw)
  local kind = string.byte(raw)
  local container = (kind >= 128 and kind <= 159) or (kind >= 220 and kind <= 223)
  return #raw / (container and 10 or 128)
end

-- What a path leads to within a value, or nil.
function value.follow(path, whole)
  for _, name in ipairs(path) do
    if type(whole) ~= 'table' then
      return nil
    end
    whole = whole[name]
  end
  return whole
end

-- What a place holds.
function value.of(place, raw)
  if place.native == 'number' then
    return tonumber(raw)
  elseif place.native then
    return raw
  end
  return value.follow(place.path, value.unpack(raw))
end

-- The moment that a value stands for, or nil.
function value.instant(place, found)
  if place.native then
    return type(found) == 'number' and found or nil
  end
  return type(found) == 'string' and clock.parse(found) or nil
end
