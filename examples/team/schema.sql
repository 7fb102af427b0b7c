CREATE TABLE IF NOT EXISTS users (
    name  TEXT PRIMARY KEY,
    login INTEGER NOT NULL DEFAULT 1 -- tokens repeat it; a logout increments it
) STRICT;

CREATE TABLE IF NOT EXISTS members (
    team TEXT NOT NULL, -- its topic
    user TEXT NOT NULL REFERENCES users,
    PRIMARY KEY (team, user)
) STRICT;

CREATE TABLE IF NOT EXISTS messages (
    id     INTEGER PRIMARY KEY,
    team   TEXT NOT NULL,
    author TEXT NOT NULL,
    body   TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS files (
    id      INTEGER PRIMARY KEY,
    team    TEXT NOT NULL,
    author  TEXT NOT NULL,
    content BLOB NOT NULL
) STRICT;

INSERT OR IGNORE INTO users (name) VALUES ('ann'), ('bob'), ('eve');
INSERT OR IGNORE INTO members (team, user) VALUES ('team:red', 'ann'), ('team:red', 'bob');
