#!lua
-- Create items; with upsert, replace those that exist.
-- keys: partition
-- args: now_ms:int call_id request:msgpack
-- use: outcome item call change plain
-- drain: yes

local function create(operation, place)
  local record = item.load(operation.key, operation.sort)
  if record.corrupt then
    return { outcome.corrupt, false, false }
  elseif not record.exists then
    if operation.match or operation.expect then
      return { operation.match and outcome.precondition_failed or outcome.not_found, false, false }
    end
    return change.create(record, operation, place)
  elseif operation.upsert then
    return change.update(record, operation, place)
  end
  return call.refuse(outcome.exists, record)
end

return function()
  return call.run(create, plain.create)
end
