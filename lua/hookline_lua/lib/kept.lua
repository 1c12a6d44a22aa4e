-- What is kept for a while under an id that came with an idempotency key.

local kept = {}

local function name_of(id)
  return partition .. ':once:' .. id
end

-- The record under an id: nil if there is none, false if it is none that Hookline writes.
function kept.read(id)
  local packed = redis.pcall('GET', name_of(id))
  if not packed then
    return nil
  end
  local sound, record = pcall(cmsgpack.unpack, packed)
  return sound and type(record) == 'table' and record
end

function kept.write(id, record, keep_ms)
  redis.call('SET', name_of(id), cmsgpack.pack(record), 'PX', keep_ms)
end
