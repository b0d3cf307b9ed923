-- +goose Up
CREATE INDEX mining_workers_name ON mining_workers (puid, worker_name);
