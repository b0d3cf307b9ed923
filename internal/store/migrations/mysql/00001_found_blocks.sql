-- +goose Up
CREATE TABLE IF NOT EXISTS found_blocks (
  id               int(11)             NOT NULL AUTO_INCREMENT,
  puid             int(11)             NOT NULL,
  worker_id        bigint(20)          NOT NULL,
  worker_full_name varchar(50)         NOT NULL,
  job_id           bigint(20) unsigned NOT NULL,
  height           int(11)             NOT NULL,
  is_orphaned      tinyint(4)          NOT NULL DEFAULT 0,
  hash             char(64)            NOT NULL,
  rewards          bigint(20)          NOT NULL,
  size             int(11)             NOT NULL,
  prev_hash        char(64)            NOT NULL,
  bits             int(10) unsigned    NOT NULL,
  version          int(11)             NOT NULL,
  created_at       datetime            NULL DEFAULT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY hash (hash),
  KEY height (height)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
