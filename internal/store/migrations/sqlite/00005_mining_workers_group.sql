-- +goose Up
CREATE INDEX mining_workers_group ON mining_workers (puid, group_id);
