-- +goose Up
CREATE TABLE found_nmc_blocks (
  id                 INTEGER PRIMARY KEY AUTOINCREMENT,
  bitcoin_block_hash TEXT     NOT NULL,
  aux_block_hash     TEXT     NOT NULL UNIQUE,
  aux_pow            TEXT     NOT NULL,
  is_orphaned        INTEGER  NOT NULL DEFAULT 0,
  chain_name         TEXT     NOT NULL DEFAULT '',
  submit_response    TEXT     NOT NULL DEFAULT '',
  created_at         DATETIME NULL
);
