-- +goose Up
-- Once only, even when a kill came between the change and its version row: MySQL's DDL has no transaction.
SET @change = (SELECT IF(COUNT(*) > 0, 'DO 0',
  'ALTER TABLE mining_workers
     ADD COLUMN first_share_at bigint NOT NULL DEFAULT 0,
     ADD COLUMN best_bits bigint NOT NULL DEFAULT 0,
     ADD COLUMN best_at bigint NOT NULL DEFAULT 0,
     ADD COLUMN round_bits bigint NOT NULL DEFAULT 0,
     ADD COLUMN round_at bigint NOT NULL DEFAULT 0')
  FROM information_schema.columns
  WHERE table_schema = DATABASE() AND table_name = 'mining_workers' AND column_name = 'first_share_at');
PREPARE change_table FROM @change;
EXECUTE change_table;
DEALLOCATE PREPARE change_table;
