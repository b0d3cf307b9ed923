-- +goose Up
CREATE TABLE stats_users_day (
  puid          INTEGER  NOT NULL,
  day           INTEGER  NOT NULL,
  share_accept  INTEGER  NOT NULL DEFAULT 0,
  share_stale   INTEGER  NOT NULL DEFAULT 0,
  share_reject  INTEGER  NOT NULL DEFAULT 0,
  reject_detail TEXT     NOT NULL DEFAULT '',
  reject_rate   REAL     NOT NULL DEFAULT 0,
  score         TEXT     NOT NULL DEFAULT '0',
  earn          TEXT     NOT NULL DEFAULT '0',
  created_at    DATETIME NULL,
  updated_at    DATETIME NULL,
  accept_hashes TEXT     NOT NULL DEFAULT '0',
  stale_hashes  TEXT     NOT NULL DEFAULT '0',
  reject_hashes TEXT     NOT NULL DEFAULT '0',
  UNIQUE (puid, day)
);
