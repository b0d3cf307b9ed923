-- +goose Up
-- Once only, even when a kill came between the change and its version row: MySQL's DDL has no transaction.
SET @change = (SELECT IF(COUNT(*) > 0, 'DO 0',
  'ALTER TABLE found_blocks ADD COLUMN sub_pool varchar(64) CHARACTER SET ascii NOT NULL DEFAULT ''''')
  FROM information_schema.columns
  WHERE table_schema = DATABASE() AND table_name = 'found_blocks' AND column_name = 'sub_pool');
PREPARE change_table FROM @change;
EXECUTE change_table;
DEALLOCATE PREPARE change_table;
