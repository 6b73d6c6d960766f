-- The ledger. `facts` is what happened: append-only, chained by hash. Every other table but `verified`
-- follows from the facts alone, row by row, and exists so that questions are answered by an index.

CREATE TABLE facts (
    seq  INTEGER PRIMARY KEY,  -- 1, 2, 3, ... without a gap
    at   TEXT NOT NULL,        -- ISO 8601, UTC
    kind TEXT NOT NULL,        -- artifact, run, reference, note
    body TEXT NOT NULL,        -- canonical JSON
    prev TEXT NOT NULL,        -- hash of the row before; 64 zeros in the first
    hash TEXT NOT NULL         -- SHA-256 of prev, seq, at, kind, body, joined by line feeds
) STRICT;

CREATE TRIGGER facts_are_never_changed BEFORE UPDATE ON facts
BEGIN SELECT RAISE(ABORT, 'facts are append-only'); END;

CREATE TRIGGER facts_are_never_deleted BEFORE DELETE ON facts
BEGIN SELECT RAISE(ABORT, 'facts are append-only'); END;

-- also keeps INSERT OR REPLACE, which fires no DELETE trigger, from rewriting a row
CREATE TRIGGER facts_continue_the_chain BEFORE INSERT ON facts
WHEN NEW.prev <> coalesce((SELECT hash FROM facts ORDER BY seq DESC LIMIT 1), printf('%064d', 0))
  OR NEW.seq <> coalesce((SELECT max(seq) FROM facts), 0) + 1
BEGIN SELECT RAISE(ABORT, 'facts are append-only'); END;

CREATE TABLE artifacts (
    id   TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    seq  INTEGER NOT NULL REFERENCES facts (seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE files (
    artifact TEXT NOT NULL REFERENCES artifacts (id),
    path     TEXT NOT NULL,  -- relative, POSIX
    sha256   TEXT NOT NULL,
    bytes    INTEGER NOT NULL,
    PRIMARY KEY (artifact, path)
) STRICT, WITHOUT ROWID;

CREATE INDEX files_by_hash ON files (sha256);

-- where an artifact's files lie; the newest row counts
CREATE TABLE places (
    seq      INTEGER PRIMARY KEY REFERENCES facts (seq),
    artifact TEXT NOT NULL REFERENCES artifacts (id),
    folder   TEXT NOT NULL  -- '' in the object store, else a folder outside (a model in the user's cache)
) STRICT;

CREATE INDEX places_by_artifact ON places (artifact, seq);

CREATE TABLE runs (
    seq    INTEGER PRIMARY KEY REFERENCES facts (seq),
    id     TEXT NOT NULL UNIQUE,
    key    TEXT NOT NULL,  -- of stage, version, spec and inputs
    stage  TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('finished', 'failed', 'stopped'))
) STRICT;

CREATE INDEX runs_by_key ON runs (key, status, seq);

CREATE INDEX runs_by_stage ON runs (stage, seq);

-- what a run read and wrote
CREATE TABLE edges (
    run       TEXT NOT NULL REFERENCES runs (id),
    direction TEXT NOT NULL CHECK (direction IN ('in', 'out')),
    name      TEXT NOT NULL,  -- the field of the stage's inputs or outputs; 'answers.tuned' in a family
    artifact  TEXT NOT NULL REFERENCES artifacts (id),
    PRIMARY KEY (run, direction, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX edges_by_artifact ON edges (artifact, direction);

-- names such as `prod`, with their history; the newest row counts
CREATE TABLE moves (
    seq    INTEGER PRIMARY KEY REFERENCES facts (seq),
    name   TEXT NOT NULL,
    target TEXT,  -- id of an artifact or a run; NULL: the name was taken away
    why    TEXT NOT NULL
) STRICT;

CREATE INDEX moves_by_name ON moves (name, seq);

CREATE TABLE notes (
    seq  INTEGER PRIMARY KEY REFERENCES facts (seq),
    kind TEXT NOT NULL
) STRICT;

CREATE INDEX notes_by_kind ON notes (kind, seq);

-- a cache, not derived: files whose hash was found right, so that weights are not hashed at every use
CREATE TABLE verified (
    path     TEXT PRIMARY KEY,
    sha256   TEXT NOT NULL,
    inode    INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
