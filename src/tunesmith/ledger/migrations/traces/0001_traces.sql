-- Served requests. Apart from the ledger: another write rate, another retention, another privacy.

CREATE TABLE traces (
    seq                 INTEGER PRIMARY KEY,
    id                  TEXT NOT NULL UNIQUE,  -- the id the client was given
    at                  TEXT NOT NULL,         -- ISO 8601, UTC
    bundle              TEXT NOT NULL,         -- artifact id
    route               TEXT NOT NULL,         -- "/v1/chat/completions"
    model               TEXT NOT NULL,         -- the alias or id that was asked for
    status              INTEGER NOT NULL,      -- HTTP
    streaming           INTEGER NOT NULL,      -- 0 or 1
    prompt_tokens       INTEGER NOT NULL,
    answer_tokens       INTEGER NOT NULL,
    seconds             REAL NOT NULL,
    time_to_first_token REAL,                  -- seconds; NULL where nothing was generated
    finish              TEXT,                  -- "stop", "length", "label", "aborted"; NULL on an error
    confidence          REAL,
    client              TEXT NOT NULL,         -- a hash, never the address
    messages            TEXT,                  -- JSON; NULL unless the owner chose to keep content
    answer              TEXT                   -- the same
) STRICT;

CREATE INDEX traces_by_bundle ON traces (bundle, seq);
