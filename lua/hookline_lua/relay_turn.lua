#!lua flags=allow-oom
-- Whose turn is it among the events of one item for one URL? With `ended` that event gives way, if it is the first. Then
-- the place of the event `id` (0 is first, false is none), which one is first, whether that is still in the outbox, and
-- whether `ended` has given way. The list is forgotten where nobody asks for `keep` ms.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: turns

return function()
  local name = turns.name(request.key, request.sort, request.url)
  local gone = request.ended and redis.call('LINDEX', name, 0) == request.ended
  if gone then
    redis.call('LPOP', name)
  end
  redis.call('PEXPIRE', name, request.keep)
  local place, first = redis.call('LPOS', name, request.id), redis.call('LINDEX', name, 0)
  local fresh = first and #redis.call('XRANGE', partition .. ':outbox', first, first) > 0
  return cmsgpack.pack({ place, first, fresh, gone or false })
end
