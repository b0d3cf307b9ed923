-- +goose Up
CREATE TABLE users (
  puid       INTEGER PRIMARY KEY AUTOINCREMENT,
  name       TEXT     NOT NULL UNIQUE,
  created_at DATETIME NULL
);
