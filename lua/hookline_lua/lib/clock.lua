-- The clock of a call: the store's own, or the one a test passes; and times as text.

local clock = {}

-- Milliseconds as the decimal text that hashes keep: tostring would round at 14 digits.
function clock.text(ms)
  return string.format('%.0f', ms)
end

-- '+600000' is that long from now; anything else is a point in time already.
function clock.resolve(text)
  if string.sub(text, 1, 1) == '+' then
    return clock.text(clock.ms + tonumber(string.sub(text, 2)))
  end
  return text
end

-- Of two times, each of which may be nil.
function clock.earlier(one, other)
  return one and other and math.min(one, other) or one or other
end

-- Processor time, which servers before Redis 7.2 do not give; TIME stands still within a script. Where a test's clock does
-- as well, work alone bounds what a call does.
local SEARCH_SECONDS, EVERY = 0.0015, 16
local known, processor_time
local timed, began, asked

local function find_processor_time()
  return os.clock
end

function clock.reset()
  clock.ms, clock.micros = now_ms, 0
  if not now_ms then
    local time = redis.call('TIME')
    clock.ms, clock.micros = time[1] * 1000 + math.floor(time[2] / 1000), time[2] % 1000
  end
  clock.now = clock.text(clock.ms)
  if known == nil then
    known, processor_time = pcall(find_processor_time)
  end
  timed, began, asked = known and not now_ms, nil, 0
end

-- Whether the call has run for long enough, asked for each entry that it looks at, or for what costs as much as so many.
-- What only searches ends early; who says how many `seconds` it may take does what was asked for all the while.
function clock.late(entries, seconds)
  began = began or (timed and processor_time())
  asked = asked + (entries or 1)
  if not began or asked < EVERY then
    return false
  end
  asked = 0
  return processor_time() - began > (seconds or SEARCH_SECONDS)
end

-- Days since 1970-01-01 of a date in the Gregorian calendar; years begin in March, so that leap days come last.
function clock.days(year, month, day)
  if month <= 2 then
    year = year - 1
  end
  local era = math.floor(year / 400)
  local year_of_era = year - era * 400
  local day_of_year = math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1
  local day_of_era = year_of_era * 365 + math.floor(year_of_era / 4) - math.floor(year_of_era / 100) + day_of_year
  return era * 146097 + day_of_era - 719468
end

local function days_in(year, month)
  local next_month, next_year = month % 12 + 1, month == 12 and year + 1 or year
  return clock.days(next_year, next_month, 1) - clock.days(year, month, 1)
end

-- Whether such a day and time of day exist.
local function exists(year, month, day, hour, minute, second)
  return year >= 1 and month >= 1 and month <= 12 and day >= 1 and day <= days_in(year, month)
    and hour <= 23 and minute <= 59 and second <= 59
end

-- RFC 3339 text -> milliseconds, finer digits cut off; or nil.
function clock.parse(text)
  local year, month, day, hour, minute, second, fraction, zone =
    string.match(text, '^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)([.%d]*)(.+)$')
  if not year then
    return nil
  end
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  hour, minute, second = tonumber(hour), tonumber(minute), tonumber(second)
  local digits = string.match(fraction, '^%.(%d+)$') or ''
  if #digits > 9 or (digits == '' and fraction ~= '') or not exists(year, month, day, hour, minute, second) then
    return nil
  end
  local offset = 0
  if zone ~= 'Z' and zone ~= 'z' then
    local sign, hours, minutes = string.match(zone, '^([+-])(%d%d):(%d%d)$')
    if not sign or tonumber(hours) > 23 or tonumber(minutes) > 59 then
      return nil
    end
    offset = (tonumber(hours) * 60 + tonumber(minutes)) * 60000
    if sign == '-' then
      offset = -offset
    end
  end
  local millis = tonumber(string.sub(digits .. '000', 1, 3))
  return ((clock.days(year, month, day) * 24 + hour) * 60 + minute) * 60000 + second * 1000 + millis - offset
end

-- Milliseconds -> RFC 3339 in UTC, as hookline/clock.py writes it.
function clock.rfc3339(ms)
  local days = math.floor(ms / 86400000)
  local rest = ms - days * 86400000
  local shifted = days + 719468
  local era = math.floor(shifted / 146097)
  local day_of_era = shifted - era * 146097
  local year_of_era = math.floor(
    (day_of_era - math.floor(day_of_era / 1460) + math.floor(day_of_era / 36524) - math.floor(day_of_era / 146096)) / 365
  )
  local day_of_year = day_of_era - (365 * year_of_era + math.floor(year_of_era / 4) - math.floor(year_of_era / 100))
  local month_from_march = math.floor((5 * day_of_year + 2) / 153)
  local day = day_of_year - math.floor((153 * month_from_march + 2) / 5) + 1
  local month = month_from_march < 10 and month_from_march + 3 or month_from_march - 9
  local year = year_of_era + era * 400 + (month <= 2 and 1 or 0)
  local seconds = math.floor(rest / 1000)
  local text = string.format('%04d-%02d-%02dT%02d:%02d:%02d', year, month, day,
    math.floor(seconds / 3600), math.floor(seconds / 60) % 60, seconds % 60)
  local millis = rest % 1000
  if millis > 0 then
    return string.format('%s.%03dZ', text, millis)
  end
  return text .. 'Z'
end
