#!lua flags=no-writes
-- Names, one page after the other: of a partition's keys that are `like` a pattern, without its tag; or, with `set`, of what
-- a set, sorted set or hash holds. Nothing that is there all the while is left out, some may come twice. With `members` as
-- well, in place of names the scores that these have in a sorted set, false where there is none.
-- keys: partition
-- args: now_ms:int request:msgpack

local PAGE = 500

local function keys_like(pattern)
  local page = redis.call('SCAN', request.cursor, 'MATCH', partition .. ':' .. pattern, 'COUNT', PAGE)
  for place, name in ipairs(page[2]) do
    page[2][place] = string.sub(name, #partition + 2)
  end
  return page
end

local WALKS = { zset = 'ZSCAN', set = 'SSCAN', hash = 'HSCAN' }

local function members_of(name)
  local kind = redis.call('TYPE', name).ok
  if not WALKS[kind] then
    return { '0', {} }
  end
  local page = redis.call(WALKS[kind], name, request.cursor, 'COUNT', PAGE)
  if kind == 'set' then
    return page
  end
  local members = {}
  for place = 1, #page[2], 2 do
    members[#members + 1] = page[2][place]
  end
  return { page[1], members }
end

local function scores_of(name)
  local scores = redis.pcall('ZMSCORE', name, unpack(request.members))
  return scores.err and {} or scores
end

return function()
  if request.members then
    return cmsgpack.pack(scores_of(partition .. ':' .. request.set))
  end
  return cmsgpack.pack(request.set and members_of(partition .. ':' .. request.set) or keys_like(request.like))
end
