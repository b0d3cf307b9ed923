-- +goose Up
-- Once only, even when a kill came between the change and its version row: MySQL's DDL has no transaction.
SET @change = (SELECT IF(COUNT(*) > 0, 'DO 0',
  'ALTER TABLE stats_workers_hour
     ADD COLUMN accept_hashes decimal(40,0) NOT NULL DEFAULT 0,
     ADD COLUMN stale_hashes decimal(40,0) NOT NULL DEFAULT 0,
     ADD COLUMN reject_hashes decimal(40,0) NOT NULL DEFAULT 0')
  FROM information_schema.columns
  WHERE table_schema = DATABASE() AND table_name = 'stats_workers_hour' AND column_name = 'accept_hashes');
PREPARE change_table FROM @change;
EXECUTE change_table;
DEALLOCATE PREPARE change_table;
