-- +goose Up
CREATE TABLE IF NOT EXISTS stats_pool_day (
  day           int(11)        NOT NULL,
  share_accept  bigint(20)     NOT NULL DEFAULT 0,
  share_stale   bigint(20)     NOT NULL DEFAULT 0,
  share_reject  bigint(20)     NOT NULL DEFAULT 0,
  reject_detail varchar(255)   NOT NULL DEFAULT '',
  reject_rate   double         NOT NULL DEFAULT 0,
  score         decimal(35,25) NOT NULL DEFAULT 0,
  earn          decimal(35,0)  NOT NULL DEFAULT 0,
  lucky         double         NOT NULL DEFAULT 0,
  created_at    timestamp      NULL DEFAULT NULL,
  updated_at    timestamp      NULL DEFAULT NULL,
  UNIQUE KEY day (day)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
