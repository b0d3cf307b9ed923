-- +goose Up
CREATE INDEX stats_workers_hour_hour ON stats_workers_hour (hour);
