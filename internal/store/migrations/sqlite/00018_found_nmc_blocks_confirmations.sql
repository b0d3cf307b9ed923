-- +goose Up
ALTER TABLE found_nmc_blocks ADD COLUMN confirmations INTEGER NOT NULL DEFAULT 0;
