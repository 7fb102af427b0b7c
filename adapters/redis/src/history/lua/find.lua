-- Finds the messages of a sender that were kept although it has got no answer.
--
-- KEYS: 1 the topic, 2 its messages.
-- ARGV: 1 the sender (8 bytes), 2 its number for the first of them.
--
-- Returns the epoch, and of each message its number (8 bytes) followed by its id.

-- Nothing is tried for longer than half a minute.
local MINUTE, PAGE = 60000, 100
local topic = redis.call('GET', KEYS[1])
if not topic then return { '' } end

local found, to = { string.sub(topic, 1, 8) }, '+'
local time = redis.call('TIME')
local oldest = string.format('%.0f', math.max(time[1] * 1000 - MINUTE, 0))
while true do
    local page = redis.call('XREVRANGE', KEYS[2], to, oldest, 'COUNT', PAGE)
    for _, entry in ipairs(page) do
        local header = entry[2][2]
        if string.sub(header, 1, 8) == ARGV[1] then
            -- A sender's messages are in its order.
            if struct.unpack('>I8', header, 9) < tonumber(ARGV[2]) then return found end
            found[#found + 1] = string.sub(header, 9, 16) .. entry[1]
        end
    end
    if #page < PAGE then return found end
    to = '(' .. page[PAGE][1]
end
