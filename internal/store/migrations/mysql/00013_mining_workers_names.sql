-- +goose Up
-- Once only, even when a kill came between the change and its version row: MySQL's DDL has no transaction.
SET @change = (SELECT IF(COUNT(*) > 0, 'DO 0',
  'ALTER TABLE mining_workers
     ADD COLUMN user_name varchar(255) NOT NULL DEFAULT '''',
     ADD COLUMN last_share_addr varchar(45) NOT NULL DEFAULT ''''')
  FROM information_schema.columns
  WHERE table_schema = DATABASE() AND table_name = 'mining_workers' AND column_name = 'user_name');
PREPARE change_table FROM @change;
EXECUTE change_table;
DEALLOCATE PREPARE change_table;
