-- +goose Up
-- Once only each, even when a kill came between a change and the version row: MySQL's DDL has no transaction.
SET @change = (SELECT IF(COUNT(*) > 0, 'DO 0',
  'ALTER TABLE stats_pool_day ADD COLUMN reject_detail_hashes varchar(1500) CHARACTER SET ascii NOT NULL DEFAULT ''''')
  FROM information_schema.columns
  WHERE table_schema = DATABASE() AND table_name = 'stats_pool_day' AND column_name = 'reject_detail_hashes');
PREPARE change_table FROM @change;
EXECUTE change_table;
DEALLOCATE PREPARE change_table;
SET @change = (SELECT IF(COUNT(*) > 0, 'DO 0',
  'ALTER TABLE stats_pool_hour ADD COLUMN reject_detail_hashes varchar(1500) CHARACTER SET ascii NOT NULL DEFAULT ''''')
  FROM information_schema.columns
  WHERE table_schema = DATABASE() AND table_name = 'stats_pool_hour' AND column_name = 'reject_detail_hashes');
PREPARE change_table FROM @change;
EXECUTE change_table;
DEALLOCATE PREPARE change_table;
SET @change = (SELECT IF(COUNT(*) > 0, 'DO 0',
  'ALTER TABLE stats_users_day ADD COLUMN reject_detail_hashes varchar(1500) CHARACTER SET ascii NOT NULL DEFAULT ''''')
  FROM information_schema.columns
  WHERE table_schema = DATABASE() AND table_name = 'stats_users_day' AND column_name = 'reject_detail_hashes');
PREPARE change_table FROM @change;
EXECUTE change_table;
DEALLOCATE PREPARE change_table;
SET @change = (SELECT IF(COUNT(*) > 0, 'DO 0',
  'ALTER TABLE stats_users_hour ADD COLUMN reject_detail_hashes varchar(1500) CHARACTER SET ascii NOT NULL DEFAULT ''''')
  FROM information_schema.columns
  WHERE table_schema = DATABASE() AND table_name = 'stats_users_hour' AND column_name = 'reject_detail_hashes');
PREPARE change_table FROM @change;
EXECUTE change_table;
DEALLOCATE PREPARE change_table;
SET @change = (SELECT IF(COUNT(*) > 0, 'DO 0',
  'ALTER TABLE stats_workers_day ADD COLUMN reject_detail_hashes varchar(1500) CHARACTER SET ascii NOT NULL DEFAULT ''''')
  FROM information_schema.columns
  WHERE table_schema = DATABASE() AND table_name = 'stats_workers_day' AND column_name = 'reject_detail_hashes');
PREPARE change_table FROM @change;
EXECUTE change_table;
DEALLOCATE PREPARE change_table;
SET @change = (SELECT IF(COUNT(*) > 0, 'DO 0',
  'ALTER TABLE stats_workers_hour ADD COLUMN reject_detail_hashes varchar(1500) CHARACTER SET ascii NOT NULL DEFAULT ''''')
  FROM information_schema.columns
  WHERE table_schema = DATABASE() AND table_name = 'stats_workers_hour' AND column_name = 'reject_detail_hashes');
PREPARE change_table FROM @change;
EXECUTE change_table;
DEALLOCATE PREPARE change_table;
