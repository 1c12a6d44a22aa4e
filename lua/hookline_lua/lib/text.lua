-- Text in the order of its bytes, as the sorted sets keep it: Lua's own `<` follows the locale of the store's machine.

local text = {}

local CHUNK = 256

-- -1, 0 or 1.
function text.compare(a, b)
  local place, shorter = 1, math.min(#a, #b)
  while place <= shorter and string.sub(a, place, place + CHUNK - 1) == string.sub(b, place, place + CHUNK - 1) do
    place = place + CHUNK
  end
  for i = place, math.min(shorter, place + CHUNK - 1) do
    local left, right = string.byte(a, i), string.byte(b, i)
    if left ~= right then
      return left < right and -1 or 1
    end
  end
  return #a < #b and -1 or #a > #b and 1 or 0
end

-- Where a small letter comes behind all capitals, the locale's order is that of the bytes, and costs a tenth to ask for.
local BYTEWISE = not ('a' < 'B')

-- Whether a comes before b.
function text.precedes(a, b)
  if BYTEWISE then
    return a < b
  end
  return text.compare(a, b) < 0
end
