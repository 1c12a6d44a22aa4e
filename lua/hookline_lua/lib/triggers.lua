-- Triggers as they are kept, packed: `[[url, sealed API key, events]]`.

local triggers = {}

-- Triggers as written, with the stored API key where an entry brings none; nil where there are none.
function triggers.merge(written, stored)
  local keys, merged = {}, cmsgpack.unpack(written)
  for _, trigger in ipairs(stored and cmsgpack.unpack(stored) or {}) do
    keys[trigger[1]] = trigger[2]
  end
  for _, trigger in ipairs(merged) do
    if trigger[2] == false then
      trigger[2] = keys[trigger[1]] or ''
    end
  end
  return #merged > 0 and cmsgpack.pack(merged) or nil
end

-- What a reader sees of them: a key is sealed differently each time that it is written.
function triggers.visible(packed)
  local seen = packed and cmsgpack.unpack(packed) or {}
  for _, trigger in ipairs(seen) do
    trigger[2] = trigger[2] ~= ''
  end
  return cmsgpack.pack(seen)
end

local function gather(wanted, packed, event, of_key)
  for _, trigger in ipairs(packed and cmsgpack.unpack(packed) or {}) do
    local url = trigger[1]
    for _, name in ipairs(trigger[3]) do
      if name == event and not wanted[url] then
        wanted[url] = true
        wanted[#wanted + 1] = { url, trigger[2], trigger[3], of_key }
      end
    end
  end
end

-- Those of the item and those of its key that want this event, packed, each with whether it is the key's and each URL once;
-- nil where there are none.
function triggers.matching(own, of_key, event)
  if not (own or of_key) then
    return nil
  end
  local wanted = {}
  gather(wanted, own, event, false)
  gather(wanted, of_key, event, true)
  return #wanted > 0 and cmsgpack.pack({ unpack(wanted) }) or nil
end
