-- +goose Up
ALTER TABLE found_nmc_blocks ADD COLUMN state TEXT NOT NULL DEFAULT 'submitted';
