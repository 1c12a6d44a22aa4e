-- Triggers as they are kept, packed: `[[url, sealed API key, events, options]]`. The options, if there are any, are
-- `[conditions, filters as written, retry, ordered, format, sealed secrets]`, false for each that is not there.
-- use: where

-- `of_keys` are those of keys, by the text of each: most items of a call are of one key.
local triggers = {}

function triggers.reset()
  triggers.of_keys = {}
end

local CONDITIONS, WRITTEN, ORDERED, SECRETS = 1, 2, 4, 6

local function options_of(trigger)
  return type(trigger[4]) == 'table' and trigger[4] or nil
end

-- The options as written, with the stored secrets where they say nothing of any.
local function keep_secrets(trigger, stored)
  local options, kept = options_of(trigger), options_of(stored)
  local secrets = kept and kept[SECRETS]
  if secrets and not options then
    trigger[4] = { false, false, false, false, false, secrets }
  elseif options and options[SECRETS] == false then
    options[SECRETS] = secrets or false
  end
end

-- Triggers as written, with the stored API key and secrets where an entry brings none; nil where there are none.
function triggers.merge(written, stored)
  local before, merged = {}, cmsgpack.unpack(written)
  pcall(function() -- who writes new ones in the place of what can't be read mends it
    for _, trigger in ipairs(stored and cmsgpack.unpack(stored) or {}) do
      before[trigger[1]] = trigger
    end
  end)
  for _, trigger in ipairs(merged) do
    local known = before[trigger[1]]
    if trigger[2] == false then
      trigger[2] = known and known[2] or ''
    end
    if known then
      keep_secrets(trigger, known)
    end
  end
  return #merged > 0 and cmsgpack.pack(merged) or nil
end

-- What a reader sees of them: what is sealed is sealed differently each time that it is written.
function triggers.visible(packed)
  local seen = packed and cmsgpack.unpack(packed) or {}
  for _, trigger in ipairs(seen) do
    trigger[2] = trigger[2] ~= ''
    local options = options_of(trigger)
    if options then
      options[SECRETS] = options[SECRETS] and #options[SECRETS] or 0
    end
  end
  return cmsgpack.pack(seen)
end

-- Whether one of a trigger's events is this one, or that the item has come into a status.
local function wants(events, event, status)
  for _, name in ipairs(events) do
    if name == event or (status and name == status) then
      return true
    end
  end
  return false
end

-- Whether one of them listens to an event, or to a status, of some item at least.
function triggers.listen(packed, event, status)
  for _, trigger in ipairs(packed and cmsgpack.unpack(packed) or {}) do
    if wants(trigger[3], event, status) then
      return true
    end
  end
  return false
end

-- Triggers of a key, as a call unpacks them once for all items.
local function of_this(packed)
  local known = packed and triggers.of_keys[packed]
  if packed and not known then
    known = cmsgpack.unpack(packed)
    triggers.of_keys[packed] = known
  end
  return known
end

-- Whether a trigger's filters let a change pass. They are unpacked when first asked, and leave the options: no event tells
-- them.
local function passes(trigger, options, change)
  if options and options[CONDITIONS] then
    trigger.conditions = cmsgpack.unpack(options[CONDITIONS])
    options[CONDITIONS], options[WRITTEN] = false, false
  end
  local conditions = trigger.conditions
  return not conditions or where.matches(change.fields, change.sort, conditions, change.decoded)
end

local function gather(wanted, ordered, known, change, of_key)
  for _, trigger in ipairs(known or {}) do
    local url, options = trigger[1], options_of(trigger)
    if not wanted[url] and wants(trigger[3], change.event, change.status) then
      if passes(trigger, options, change) then
        wanted[url] = true
        if options and options[ORDERED] then
          ordered[#ordered + 1] = url
        end
        wanted[#wanted + 1] = { url, trigger[2], trigger[3], of_key, options or false }
      end
    end
  end
end

local function gather_own(wanted, ordered, own, change)
  gather(wanted, ordered, cmsgpack.unpack(own), change, false)
end

-- Those of the item and those of its key that want this change (`event`, the `status` event if it came into another, its
-- `fields`, `sort` and what is `decoded`), packed, each with whether it is the key's and each URL once; nil where there are
-- none, false where the item's can't be read. And the URLs of those that are ordered.
function triggers.matching(own, of_key, change)
  if not (own or of_key) then
    return nil
  end
  local wanted, ordered = {}, {}
  if own and not pcall(gather_own, wanted, ordered, own, change) then
    return false
  end
  gather(wanted, ordered, of_this(of_key), change, true)
  return #wanted > 0 and cmsgpack.pack({ unpack(wanted) }) or nil, ordered
end
