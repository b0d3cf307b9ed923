-- +goose Up
CREATE INDEX found_blocks_height ON found_blocks (height);
