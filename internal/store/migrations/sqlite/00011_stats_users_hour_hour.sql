-- +goose Up
CREATE INDEX stats_users_hour_hour ON stats_users_hour (hour);
