#!lua flags=allow-oom
-- Delete items with their index entries. Whoever held one gets `not_found` from then on.
-- keys: partition
-- args: now_ms:int call_id request:msgpack
-- use: outcome item call change

local function conditional(operation)
  return operation.expect or operation.match or operation.token or operation.only_if
end

local function delete(operation)
  local broken = item.load(operation.key, operation.sort)
  if broken.corrupt and broken.stored and not conditional(operation) then
    -- Nothing else can remove it; without an event, since it can't be told of.
    local shown = {}
    for field, stored in pairs(broken.fields) do
      shown[field] = stored
    end
    item.open(broken)
    item.clear(broken)
    return { item.close(broken) and outcome.ok or outcome.corrupt, shown, false }
  end
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
