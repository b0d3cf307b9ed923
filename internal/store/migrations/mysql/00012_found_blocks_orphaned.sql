-- +goose Up
-- Rows written before there was a state; the others are followed up by blkmaker.
UPDATE found_blocks SET state = 'orphaned' WHERE is_orphaned = 1;
