-- +goose Up
SET @change = (SELECT IF(COUNT(*) > 0, 'DO 0',
  'ALTER TABLE stats_pool_day ADD COLUMN log_bytes bigint NOT NULL DEFAULT 0')
  FROM information_schema.columns
  WHERE table_schema = DATABASE() AND table_name = 'stats_pool_day' AND column_name = 'log_bytes');
PREPARE change_table FROM @change;
EXECUTE change_table;
DEALLOCATE PREPARE change_table;
