#!lua flags=allow-oom
-- Claim items of a key: those whose lock has expired, then those in line, the due ones put in line first.
-- keys: partition
-- args: now_ms:int call_id request:msgpack
-- use: call claim

return function()
  return call.run(claim.run)
end
