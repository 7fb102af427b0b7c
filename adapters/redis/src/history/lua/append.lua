-- Keeps messages at the end of their topics, and publishes them. Several together cost the server much less than one by one.
--
-- KEYS: 1 the sender's connection, and of each topic: the topic, its messages.
-- ARGV: 1 the connection on which this comes, 2 an epoch for topics that have none (8 bytes), and of each message:
--       a head, the channel, the content. The head is binary: which of the topics it is (2 bytes), the sender and its
--       number for the message (16), how many messages are kept (8), how many bytes (8), for how many milliseconds (8).
--       Those of one topic ask for the same.
--
-- The messages of a topic are a stream. An entry's id is the message's number; it has the sender and its number, the bytes
-- of all contents before, and the id before, and then the content. The topic is a string: its epoch, the bytes of all
-- contents, when it is due for upkeep (0: no message has come yet), for how many milliseconds messages are kept, and the
-- last id.
--
-- Returns of each message the epoch and the id, or why it is not kept. Nothing is written before the first XADD, which is
-- refused if there is no memory; then the others are, too.

local HOUR, DAY = 3600000, 86400000
local keys = { KEYS[1] }
for index = 2, #KEYS, 2 do keys[#keys + 1] = KEYS[index] end
local there = redis.call('MGET', unpack(keys))
if there[1] ~= ARGV[1] then
    -- The sender has another one by now, and has sent there what was not answered here.
    return redis.error_reply('STALE the sender has another connection')
end

-- What is known of a topic.
local function read(index)
    local it = { key = KEYS[2 * index], messages = KEYS[2 * index + 1], size = 0 }
    local topic = there[index + 1]
    if topic and #topic >= 32 then
        it.epoch, it.within = string.sub(topic, 1, 8), string.sub(topic, 25, 32)
        it.bytes, it.due = struct.unpack('>I8I8', topic, 9)
        it.last = it.due > 0 and string.sub(topic, 33) or ''
    end
    return it
end

-- Returns the id, or an error.
local function keep(it, head, content)
    local sender = string.sub(head, 3, 18)
    local id
    if it.epoch then
        id = redis.pcall('XADD', it.messages, 'NOMKSTREAM', 'MAXLEN', '~', it.max_messages, '*',
            'h', sender .. struct.pack('>I8', it.bytes) .. it.last, 'c', content)
    end
    if not id then
        -- One of the two keys is missing: it never was, has expired or was evicted. What the other one has is forgotten.
        id = redis.pcall('XADD', it.messages, 'MAXLEN', '=', 1, '*',
            'h', sender .. struct.pack('>I8', 0), 'c', content)
        if type(id) == 'string' then
            it.epoch, it.bytes, it.due, it.last, it.within = ARGV[2], 0, 0, '', it.new_within
        end
    end
    return id
end

local function time(id) return tonumber(string.match(id, '^%d+')) end

-- The first entry that is kept, of those since a time. The newest one is, and what was kept for a shorter time does not come
-- back.
local function oldest(it, bound)
    local from = '-'
    while true do
        for _, entry in ipairs(redis.call('XRANGE', it.messages, from, '+', 'COUNT', 16)) do
            local begin = struct.unpack('>I8', entry[2][2], 17)
            local is_young = time(entry[1]) >= bound
            if entry[1] == it.last or is_young and it.bytes - begin <= it.max_bytes then return entry[1] end
            from = '(' .. entry[1]
        end
    end
end

-- Notes what has become of a topic.
local function write(it)
    local now = time(it.last)
    local step = it.max_bytes / 16
    local is_crossed = it.size >= step or it.bytes % step < it.size
    local state = function() return it.epoch .. struct.pack('>I8I8', it.bytes, it.due) .. it.new_within .. it.last end
    -- Upkeep is due after a while, when another sixteenth of the bytes is full, and when messages are kept for another time.
    if now < it.due and not is_crossed and it.within == it.new_within then
        redis.call('SET', it.key, state(), 'KEEPTTL')
        return
    end
    local old, within = struct.unpack('>I8', it.within), struct.unpack('>I8', it.new_within)
    it.due = now + math.ceil(math.min(HOUR, within / 16))
    -- A day longer than the messages, after each of them.
    local ttl = string.format('%.0f', within + DAY + HOUR)
    redis.call('SET', it.key, state(), 'PX', ttl)
    redis.call('PEXPIRE', it.messages, ttl)
    redis.call('PEXPIRE', KEYS[1], DAY)
    -- What has just come was never kept for another time.
    local bound = math.min(now - math.min(old, within), time(it.first))
    redis.call('XTRIM', it.messages, 'MINID', '=', oldest(it, bound))
end

local topics, answers = {}, {}
for at = 3, #ARGV, 3 do
    local head, content = ARGV[at], ARGV[at + 2]
    local index = struct.unpack('>I2', head)
    local it = topics[index] or read(index)
    topics[index] = it
    it.max_messages, it.max_bytes = struct.unpack('>I8I8', head, 19)
    it.new_within = string.sub(head, 35, 42)
    local id = keep(it, head, content)
    if type(id) == 'string' then
        redis.call('PUBLISH', ARGV[at + 1], it.epoch .. id .. ' ' .. it.last .. ' ' .. content)
        it.bytes, it.size, it.last = it.bytes + #content, it.size + #content, id
        it.first = it.first or id
        id = it.epoch .. id
    end
    answers[#answers + 1] = id
end
for _, it in pairs(topics) do
    if it.first then write(it) end
end
return answers
