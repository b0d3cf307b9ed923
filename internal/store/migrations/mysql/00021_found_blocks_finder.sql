-- +goose Up
ALTER TABLE found_blocks MODIFY worker_full_name varchar(255) NOT NULL;
