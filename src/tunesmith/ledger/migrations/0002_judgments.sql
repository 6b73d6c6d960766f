-- People's judgments: notes of kind 'judgment', found by the id that the person's own browser gave them,
-- so that one sent twice is kept once.

CREATE TABLE judgments (
    seq       INTEGER PRIMARY KEY REFERENCES facts (seq),
    id        TEXT NOT NULL UNIQUE,
    queue     TEXT NOT NULL,
    item      TEXT NOT NULL,
    annotator TEXT NOT NULL
) STRICT;

CREATE INDEX judgments_by_queue ON judgments (queue, seq);
