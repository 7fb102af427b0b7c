-- Reads a page of a topic. Writes only for a topic that is not there, so that it has an epoch and a last position.
--
-- KEYS: 1 the run of the server, 2 the topic, 3 its messages.
-- ARGV: 1 the name of the run, 2 an epoch for a topic that has none, 3 the epoch that is read or '' for any,
--       4 XRANGE or XREVRANGE, 5 the id where it begins, 6 how many messages.
--
-- Returns what the first two keys have, the page's entries, and the header of the oldest message if a page that goes
-- backwards has none.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local there = redis.call('MGET', KEYS[1], KEYS[2])
local run, topic = there[1], there[2]

if not topic then
    -- An entry that is trimmed at once leaves its id behind, which all others follow.
    local id = redis.call('XADD', KEYS[3], 'MAXLEN', '=', 0, '*', 'h', '')
    topic = ARGV[2] .. struct.pack('>I8I8I8', 0, 0, 0) .. id
    -- A day, and an hour for whoever reads it before that.
    redis.call('SET', KEYS[2], topic, 'PX', 90000000)
    redis.call('PEXPIRE', KEYS[3], 90000000)
end
if not run then
    -- It was evicted. What was lost with it is not known.
    run = ARGV[1] .. ' ' .. string.format('%.0f', now)
    redis.call('SET', KEYS[1], run)
end
if ARGV[3] ~= '' and ARGV[3] ~= string.sub(topic, 1, 8) then
    return { run, topic, {} }
end

-- What is older is forgotten, although it may be there.
local cut = math.max(now - struct.unpack('>I8', topic, 25), 0)
local oldest = string.format('%.0f', cut)
if ARGV[4] == 'XRANGE' then
    local from = ARGV[5]
    if tonumber(string.match(from, '%d+')) < cut then from = oldest end
    return { run, topic, redis.call('XRANGE', KEYS[3], from, '+', 'COUNT', ARGV[6]) }
end
local page = redis.call('XREVRANGE', KEYS[3], ARGV[5], oldest, 'COUNT', ARGV[6])
local first = #page == 0 and redis.call('XRANGE', KEYS[3], oldest, '+', 'COUNT', 1)[1]
return { run, topic, page, first and first[2][2] }
