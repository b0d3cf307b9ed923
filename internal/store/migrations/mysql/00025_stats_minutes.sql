-- +goose Up
CREATE TABLE IF NOT EXISTS stats_minutes (
  puid      int(11)         NOT NULL,
  worker_id bigint(20)      NOT NULL,
  hour      int(11)         NOT NULL,
  known     int(11)         NOT NULL,
  minutes   varbinary(2000) NOT NULL,
  PRIMARY KEY (puid, worker_id, hour),
  KEY hour (hour)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
