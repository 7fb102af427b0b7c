-- Says what is known of a topic, a page of which is read by the next command of the same transaction: what a script
-- returns costs the server several times as much. Writes only for a topic that is not there, so that it has an epoch and
-- a last position.
--
-- KEYS: 1 the run of the server, 2 the topic, 3 its messages.
-- ARGV: 1 the name of the run, 2 an epoch for a topic that has none, 3 whether the oldest message is asked for, '1' or '0'.
--
-- Returns what the first two keys have, the time before which messages are forgotten although they may be there, and the
-- header of the oldest message if it is asked for.

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

local oldest = string.format('%.0f', math.max(now - struct.unpack('>I8', topic, 25), 0))
local first = ARGV[3] == '1' and redis.call('XRANGE', KEYS[3], oldest, '+', 'COUNT', 1)[1]
return { run, topic, oldest, first and first[2][2] }
