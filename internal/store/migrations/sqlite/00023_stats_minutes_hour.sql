-- +goose Up
CREATE INDEX stats_minutes_hour ON stats_minutes (hour);
