-- Keeps a message at the end of a topic, and publishes it.
--
-- KEYS: 1 the sender's connection, 2 the topic, 3 its messages.
-- ARGV: 1 the connection on which this comes, 2 the sender and its number for the message (16 bytes), 3 the content,
--       4 the channel, 5 an epoch for a topic that has none (8 bytes),
--       6 how many messages are kept, 7 how many bytes, 8 for how many milliseconds (8 bytes).
--
-- The messages are a stream. An entry's id is the message's number; it has ARGV[2], the bytes of all contents before,
-- and the id before, and then the content. The topic is a string: its epoch, the bytes of all contents, when it is due
-- for upkeep (0: no message has come yet), ARGV[8], and the last id.
--
-- Returns the epoch and the id. Nothing is written before the XADD, which is refused if there is no memory.

local there = redis.call('MGET', KEYS[1], KEYS[2])
if there[1] ~= ARGV[1] then
    -- The sender has another one by now, and has sent there what was not answered here.
    return redis.error_reply('STALE the sender has another connection')
end

local topic, size = there[2], #ARGV[3]
local epoch, before, due, previous, id
local within = ARGV[8]
if topic then
    epoch, within = string.sub(topic, 1, 8), string.sub(topic, 25, 32)
    before, due = struct.unpack('>I8I8', topic, 9)
    previous = due > 0 and string.sub(topic, 33) or ''
    id = redis.call('XADD', KEYS[3], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[6], '*',
        'h', ARGV[2] .. struct.pack('>I8', before) .. previous, 'c', ARGV[3])
end
if not id then
    -- One of the two keys is missing: it never was, has expired or was evicted. What the other one has is forgotten.
    epoch, before, due, previous, within = ARGV[5], 0, 0, '', ARGV[8]
    id = redis.call('XADD', KEYS[3], 'MAXLEN', '=', 1, '*',
        'h', ARGV[2] .. struct.pack('>I8', 0), 'c', ARGV[3])
end

local after = before + size
local now = tonumber(string.match(id, '^%d+'))
-- Upkeep is due after a while, when another sixteenth of the bytes is full, and when messages are kept for another time.
if now < due and after % (ARGV[7] / 16) >= size and within == ARGV[8] then
    redis.call('SET', KEYS[2], epoch .. struct.pack('>I8I8', after, due) .. ARGV[8] .. id, 'KEEPTTL')
else
    local HOUR, DAY = 3600000, 86400000
    local old = struct.unpack('>I8', within)
    local within = struct.unpack('>I8', ARGV[8])
    due = now + math.ceil(math.min(HOUR, within / 16))
    -- A day longer than the messages, after each of them.
    local ttl = string.format('%.0f', within + DAY + HOUR)
    redis.call('SET', KEYS[2], epoch .. struct.pack('>I8I8', after, due) .. ARGV[8] .. id, 'PX', ttl)
    redis.call('PEXPIRE', KEYS[3], ttl)
    redis.call('PEXPIRE', KEYS[1], DAY)

    -- The first entry that is kept. The newest one is, and what was kept for a shorter time does not come back.
    local oldest = now - math.min(old, within)
    local from, keep = '-', nil
    while not keep do
        for _, entry in ipairs(redis.call('XRANGE', KEYS[3], from, '+', 'COUNT', 16)) do
            local begin = struct.unpack('>I8', entry[2][2], 17)
            local is_young = tonumber(string.match(entry[1], '^%d+')) >= oldest
            if entry[1] == id or is_young and after - begin <= tonumber(ARGV[7]) then
                keep = entry[1]
                break
            end
            from = '(' .. entry[1]
        end
    end
    redis.call('XTRIM', KEYS[3], 'MINID', '=', keep)
end

redis.call('PUBLISH', ARGV[4], epoch .. id .. ' ' .. previous .. ' ' .. ARGV[3])
return epoch .. id
