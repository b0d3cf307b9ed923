-- +goose Up
ALTER TABLE found_blocks ADD COLUMN sub_pool TEXT NOT NULL DEFAULT '';
