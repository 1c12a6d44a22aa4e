#!lua flags=allow-oom
-- Delete items with their index entries. Whoever held one gets `not_found` from then on.
-- keys: partition
-- args: now_ms:int call_id request:msgpack
-- use: outcome item call change

local function delete(operation)
  local record, refusal = change.find(operation)
  if not record then
    return refusal
  end
  local refused = call.commit(record, operation, 'deleted')
  if refused then
    return refused
  end
  local shown = call.show(record, operation)
  item.clear(record)
  return { outcome.ok, shown, false }
end

return function()
  return call.run(delete)
end
