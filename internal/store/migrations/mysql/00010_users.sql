-- +goose Up
CREATE TABLE IF NOT EXISTS users (
  puid       int(11)      NOT NULL AUTO_INCREMENT,
  name       varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  created_at datetime     NULL DEFAULT NULL,
  PRIMARY KEY (puid),
  UNIQUE KEY name (name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
