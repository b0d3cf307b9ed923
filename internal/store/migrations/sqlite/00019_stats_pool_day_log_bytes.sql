-- +goose Up
ALTER TABLE stats_pool_day ADD COLUMN log_bytes INTEGER NOT NULL DEFAULT 0;
