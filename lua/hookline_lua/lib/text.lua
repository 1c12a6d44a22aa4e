-- Text in the order of its bytes, as the sorted sets keep it: Lua's own `<` follows the locale of the store's machine.

local text = {}

-- -1, 0 or 1.
function text.compare(a, b)
  for place = 1, math.min(#a, #b) do
    local left, right = string.byte(a, place), string.byte(b, place)
    if left ~= right then
      return left < right and -1 or 1
    end
  end
  return #a < #b and -1 or #a > #b and 1 or 0
end
