-- +goose Up
CREATE TABLE stats_minutes (
  puid      INTEGER NOT NULL,
  worker_id INTEGER NOT NULL,
  hour      INTEGER NOT NULL,
  known     INTEGER NOT NULL,
  minutes   BLOB    NOT NULL,
  PRIMARY KEY (puid, worker_id, hour)
) WITHOUT ROWID;
