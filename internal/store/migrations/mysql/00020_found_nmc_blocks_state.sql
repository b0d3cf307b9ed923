-- +goose Up
-- Once only, even when a kill came between the change and its version row: MySQL's DDL has no transaction.
SET @change = (SELECT IF(COUNT(*) > 0, 'DO 0',
  'ALTER TABLE found_nmc_blocks
     ADD COLUMN state varchar(16) NOT NULL DEFAULT ''submitted'',
     ADD COLUMN confirmations int(11) NOT NULL DEFAULT 0')
  FROM information_schema.columns
  WHERE table_schema = DATABASE() AND table_name = 'found_nmc_blocks' AND column_name = 'state');
PREPARE change_table FROM @change;
EXECUTE change_table;
DEALLOCATE PREPARE change_table;
