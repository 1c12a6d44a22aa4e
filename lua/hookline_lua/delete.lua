#!lua flags=allow-oom
-- Delete items with their index entries. Whoever held one gets `not_found` from then on.
-- keys: partition
-- args: now_ms:int call_id request:msgpack
-- use: outcome item call change

return call.run(function(operation)
  local record, missing = call.find(operation)
  if not record then
    return missing
  end
  local refusal = change.refusal(record, operation)
  if refusal then
    return call.refuse(refusal, record)
  end
  item.open(record)
  local refused = call.commit(record, operation, 'deleted')
  if refused then
    return refused
  end
  local shown = call.show(record, operation)
  item.clear(record)
  return { outcome.ok, shown, false }
end)
