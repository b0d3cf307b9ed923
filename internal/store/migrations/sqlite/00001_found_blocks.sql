-- +goose Up
CREATE TABLE found_blocks (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  puid             INTEGER  NOT NULL,
  worker_id        INTEGER  NOT NULL,
  worker_full_name TEXT     NOT NULL,
  job_id           INTEGER  NOT NULL,
  height           INTEGER  NOT NULL,
  is_orphaned      INTEGER  NOT NULL DEFAULT 0,
  hash             TEXT     NOT NULL UNIQUE,
  rewards          INTEGER  NOT NULL,
  size             INTEGER  NOT NULL,
  prev_hash        TEXT     NOT NULL,
  bits             INTEGER  NOT NULL,
  version          INTEGER  NOT NULL,
  created_at       DATETIME NULL,
  state            TEXT     NOT NULL DEFAULT 'submitted',
  confirmations    INTEGER  NOT NULL DEFAULT 0
);
