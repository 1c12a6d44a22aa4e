-- The words that scripts answer with; hookline/errors.py mirrors them.

local outcome = {
  ok = 'ok',
  not_found = 'not_found',
  exists = 'exists',
  version_conflict = 'version_conflict',
  precondition_failed = 'precondition_failed',
  locked = 'locked',
  stale_token = 'stale_token',
  not_claimable = 'not_claimable',
  cancelled = 'cancelled',
  paused = 'paused',
  key_full = 'key_full',
  too_many_fields = 'too_many_fields',
  outbox_full = 'outbox_full',
  settings_changed = 'settings_changed',
  idempotency_key_reused = 'idempotency_key_reused',
  corrupt = 'corrupt',
}
