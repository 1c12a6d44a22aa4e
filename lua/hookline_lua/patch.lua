#!lua
-- Update items: metadata merged, content and triggers replaced; `status: started` is a claim.
-- keys: partition
-- args: now_ms:int call_id request:msgpack
-- use: call change
-- drain: yes

local function patch(operation, place)
  local record, missing = call.find(operation)
  if not record then
    return missing
  end
  return change.update(record, operation, place)
end

return function()
  return call.run(patch)
end
