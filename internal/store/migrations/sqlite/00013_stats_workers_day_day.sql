-- +goose Up
CREATE INDEX stats_workers_day_day ON stats_workers_day (day);
