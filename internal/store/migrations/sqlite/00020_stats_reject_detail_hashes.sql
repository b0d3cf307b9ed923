-- +goose Up
ALTER TABLE stats_pool_day ADD COLUMN reject_detail_hashes TEXT NOT NULL DEFAULT '';
ALTER TABLE stats_pool_hour ADD COLUMN reject_detail_hashes TEXT NOT NULL DEFAULT '';
ALTER TABLE stats_users_day ADD COLUMN reject_detail_hashes TEXT NOT NULL DEFAULT '';
ALTER TABLE stats_users_hour ADD COLUMN reject_detail_hashes TEXT NOT NULL DEFAULT '';
ALTER TABLE stats_workers_day ADD COLUMN reject_detail_hashes TEXT NOT NULL DEFAULT '';
ALTER TABLE stats_workers_hour ADD COLUMN reject_detail_hashes TEXT NOT NULL DEFAULT '';
