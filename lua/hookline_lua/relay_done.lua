#!lua flags=allow-oom
-- Acknowledge events that were delivered, or handed on as items, and delete them from the outbox.
-- keys: partition
-- args: now_ms:int request:msgpack

return function()
  local outbox = partition .. ':outbox'
  redis.call('XACK', outbox, 'relay', unpack(request.ids))
  return redis.call('XDEL', outbox, unpack(request.ids))
end
