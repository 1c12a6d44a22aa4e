#!lua flags=allow-oom
-- Note under the id of a request what it asks for and when it first came, and once it is done, what it was answered: the
-- first answer stays. Answers these two. A repeat does no harm.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: outcome clock kept

-- What an operation asks for begins with what its request does.
local function differs(record)
  return record and string.sub(record[1], 1, #request.body) ~= request.body
end

return function()
  local record, first = kept.read(request.id), nil
  if request.first then
    first = kept.read(request.first)
  end
  if record == false or first == false then
    return cmsgpack.pack({ outcome.corrupt, false, 0 })
  elseif differs(record) or differs(first) then
    return cmsgpack.pack({ outcome.idempotency_key_reused, false, 0 })
  elseif not record or request.answer and not record[2] then
    record = { request.body, request.answer or false, record and record[3] or clock.ms }
    kept.write(request.id, record, request.keep_ms)
  end
  return cmsgpack.pack({ outcome.ok, record[2], record[3] or clock.ms })
end
