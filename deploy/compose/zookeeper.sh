#!/bin/sh
# Becomes ZooKeeper, which logs to the container's output.
set -eu
export ZOO_LOG_DIR=/tmp
exec zkServer.sh start-foreground /etc/btcpool/zookeeper.cfg
