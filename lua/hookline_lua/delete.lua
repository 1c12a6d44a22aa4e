#!lua flags=allow-oom
-- Delete items with their index entries. Whoever held one gets `not_found` from then on.
-- keys: partition
-- args: now_ms:int call_id request:msgpack
-- use: clock item lock outbox call change

return call.run(function(operation)
  local record, missing = call.find(operation)
  if not record then
    return missing
  end
  local refusal = change.refusal(record, operation)
  if refusal then
    return call.refuse(refusal, record, operation)
  end
  item.open(record)
  local word = outbox.add(record, 'deleted', operation)
  if word then
    return call.refuse(word, record, operation)
  end
  local shown = call.show(record, operation)
  item.clear(record)
  if not item.close(record) then
    table.remove(outbox.events)
    return { 'corrupt', false, false }
  end
  return { 'ok', shown, false }
end)
