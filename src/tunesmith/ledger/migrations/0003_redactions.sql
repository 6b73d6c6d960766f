-- What `forget` erased from stored files: an artifact keeps its id, and the newest row here says what its
-- file is now.

CREATE TABLE redactions (
    seq      INTEGER NOT NULL REFERENCES facts (seq),
    artifact TEXT NOT NULL REFERENCES artifacts (id),
    path     TEXT NOT NULL,
    old      TEXT NOT NULL,  -- SHA-256 until then; never stored again
    new      TEXT,           -- SHA-256 since; NULL: the whole file was erased
    bytes    INTEGER NOT NULL,
    PRIMARY KEY (artifact, path, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX redactions_by_old ON redactions (old);

CREATE INDEX redactions_by_new ON redactions (new);
