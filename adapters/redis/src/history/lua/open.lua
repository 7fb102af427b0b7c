-- Begins a connection of a sender.
--
-- KEYS: 1 the run of the server, 2 the sender's connection.
-- ARGV: 1 the name of the run, 2 the connection.
--
-- A run lasts from a start of the server's process to its end. The first who comes after that notes when: before it,
-- messages may have been lost that somebody has received.

local DAY = 86400000
local run = redis.call('GET', KEYS[1])
if not run or string.match(run, '^%S+') ~= ARGV[1] then
    local time = redis.call('TIME')
    redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
end
-- What other connections of it have sent, and was not executed yet, will not be.
return redis.call('SET', KEYS[2], ARGV[2], 'PX', DAY)
